import json
import math
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from scipy import stats

from regard.compare.contender import Contender, Cost, Metric
from regard.compare.report import write_report
from regard.compare.table import Interval, proportion_interval, score_interval
from regard.draw.plots import human, spread, three_digits
from regard.errors import RegardError
from regard.recipes import load_recipe
from regard.tasks import create_task
from regard.training import Run, load_classifier, train

ACCURACY = Metric("accuracy", True)
BITS = Metric("bits_per_byte", False)
VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(HTMLParser):
    """The elements of a page as (tag, attributes), its words, and its tables; raises where a tag is not closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    paths = {}
    for mixer, seed in (("attention", 0), ("attention", 1), ("conv", 0)):
        settings = [
            f"model.mixer={mixer}",
            "model.depth=2",
            "train.epochs=2",
            "train.max_steps=3",
            "train.batch_size=32",
            f"seed={seed}",
        ]
        paths[f"{mixer}-{seed}"] = folder / f"{mixer}-{seed}"
        train(load_recipe("vit-digits", settings), paths[f"{mixer}-{seed}"])
    return paths


@pytest.fixture(scope="module")
def contender(runs):
    def make(name, *keys, cost=None, parameters=151_050, flops=4_930_000, seconds=92.8):
        paths = tuple(runs[key] for key in keys)
        accuracies = tuple(Run(path).summary()["accuracy"] for path in paths)
        return Contender(name, paths, ACCURACY, accuracies, parameters, flops, seconds, cost)

    return make


@pytest.fixture
def report(tmp_path):
    def write(*contenders, **options):
        path = tmp_path / "report.html"
        write_report(path, title=options.pop("title", "A report"), contenders=contenders, **options)
        return path.read_text(encoding="utf-8")

    return write


@pytest.fixture(scope="module")
def comparison(contender, tmp_path_factory):
    """The page of two contenders, one seed each."""
    folder = tmp_path_factory.mktemp("comparison")
    contenders = [contender("attention", "attention-0"), contender("conv", "conv-0")]
    write_report(folder / "report.html", title="A report", contenders=contenders, command="regard compare ...")
    assert list(folder.iterdir()) == [folder / "report.html"]
    return (folder / "report.html").read_text(encoding="utf-8")


def rows(html, which):
    """The cells of each row of a table's body, as texts."""
    table = re.search(rf'<table class="{which}.*?</table>', html, re.DOTALL).group()
    body = table[table.index("<tbody>") :]
    plain = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in body.split("</tr>")[:-1]]
    return [[re.sub(r"<[^>]*>", "", cell) for cell in row] for row in plain]


@pytest.mark.shape_checks
def test_a_comparison_is_one_page_that_loads_nothing(comparison):
    html, page = comparison, Page(comparison)
    assert len(html) < 400_000
    assert page.all("html")[0]["lang"] == "en"
    assert "<title>A report</title>" in html
    for tag, attributes in page.elements:
        for key, value in attributes.items():
            if key in ("src", "href", "xlink:href", "data", "srcset", "action"):
                assert value.startswith(("#", "data:image/")), (tag, key, value[:80])
    assert not page.all("link")
    assert not re.search(r"@import|url\((?!#)", html)
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"|http-equiv', "", html)


def test_everything_has_its_own_id_and_what_is_referred_to_is_there(comparison):
    html, page = comparison, Page(comparison)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = {
        attributes[key][1:] for _, attributes in page.elements for key in ("href", "xlink:href") if key in attributes
    }
    wanted |= set(re.findall(r"url\(#([^)]*)\)", html))
    wanted = {name for name in wanted if not name.startswith("ata:")}
    assert wanted
    assert wanted <= set(ids)


def test_pictures_have_words_and_headings_have_an_order(comparison):
    page = Page(comparison)
    assert page.all("img")
    assert all(attributes["alt"] for attributes in page.all("img"))
    assert (
        sum(attributes.get("role") == "img" and bool(attributes["aria-label"]) for _, attributes in page.elements) == 5
    )
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_table_holds_the_numbers(contender, report):
    attention = contender("attention", "attention-0", cost=Cost(2.134e-4, 23.44, 64))
    conv = contender("conv", "conv-0", cost=Cost(1.5e-4, 1234.4, 64), parameters=4_900_000, flops=17_600_000_000)
    html = report(attention, conv)
    wilson = [
        stats.binomtest(round(450 * one.scores[0]), 450).proportion_ci(method="wilson") for one in (attention, conv)
    ]
    first, second = (
        [f"{100 * one.scores[0]:.1f}", f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"]
        for one, interval in zip((attention, conv), wilson, strict=True)
    )
    assert rows(html, "results") == [
        ["attention", *first, "151 k", "4.93 M", "92.8", "213", "23.4"],
        ["conv", *second, "4.9 M", "17.6 G", "92.8", "150", "1234"],
    ]
    assert "µs an image, 64 at once" in html
    assert "MB, training step of 64" in html
    # Of the accuracy the intervals overlap; times and memory have none. What is counted is exact.
    assert set(re.findall(r'class="best">([^<]*)<', html)) == {"151 k", "4.93 M"}
    assert "Wilson’s, for a proportion of 450 images" in Page(html).text


def test_the_page_says_what_was_done(contender, report):
    page = Page(
        report(contender("conv", "conv-0"), command="regard train vit-digits --set seed=0", notes=["Seen & told."])
    )
    summary = Run(contender("conv", "conv-0").runs[0]).summary()
    for words in (
        "vit_pico_patch2_8, with the token mixer conv, was trained on 1347 images of digits for at most 2 epochs and "
        "3 steps (whichever came first), and tested on 450 images that it had not seen.",
        "1347 for training, 450 held out; split drawn from seed 0",
        "in batches of 32 images",
        summary["machine"]["processor"],
        f"torch {summary['versions']['torch']}",
        "regard train vit-digits --set seed=0",
        "Seen & told.",
    ):
        assert words in page.text


def test_mistakes_and_confusion_are_those_of_the_evaluation(contender, runs, report):
    html = report(contender("conv", "conv-0"))
    run = runs["conv-0"]
    found = load_classifier(run).evaluate(create_task(Run(run).recipe()).data.val)
    scores = found.logits.softmax(1).amax(1)
    expected = [
        (
            f"predicted {found.class_names[found.predicted[i]]} ({100 * scores[i].item():.0f}%), "
            f"true {found.class_names[found.labels[i]]}",
            found.names[i],
        )
        for i in found.mistakes()[:12]
    ]
    captions = re.findall(r"<figcaption><strong>(.*?)</strong><span[^>]*>(.*?)</span></figcaption>", html)
    assert captions == expected
    assert html.count('<img class="pixels"') == 12
    table = [[int(cell) for cell in row[1:-1]] for row in rows(html, "confusion")]
    assert table == found.confusion().tolist()
    recalls = [row[-1] for row in rows(html, "confusion")]
    assert recalls == [f"{one.recall:.0%}" for one in found.per_class()]
    wrong = len(found.mistakes())
    assert f"It classified {450 - wrong} of 450 held-out images correctly and {wrong} wrongly." in Page(html).text


def test_every_contender_shows_what_it_mixes_on_the_same_image(comparison):
    text = Page(comparison).text
    assert text.count("mixing matrix, mean over heads: what token i takes from token j") == 1
    assert text.count("influence: norm of ∂y_i/∂x_j") == 1
    assert "layer 0" in text
    assert "layer 1" in text
    assert len(set(re.findall(r"The image is (digits\[\d+\])", text))) == 1


def test_seeds_share_a_row_with_students_interval(contender, report):
    one = contender("attention", "attention-0", "attention-1")
    html = report(one, contender("conv", "conv-0"))
    mean, low, high = proportion_interval(one.scores, 450)
    assert rows(html, "results")[0][1:3] == [f"{100 * mean:.1f}", f"{100 * low:.1f} to {100 * high:.1f}"]
    text = Page(html).text
    assert "over 2 seeds: Student’s t" in text
    assert "of one seed: Wilson’s" in text
    assert "(the run with seed 0, as in all that follows)" in text


def test_names_are_escaped(contender, runs, report):
    metadata = runs["conv-0"] / "metadata.json"
    before = metadata.read_text(encoding="utf-8")
    values = json.loads(before)
    values["class_names"][1] = "<b>x</b>"
    metadata.write_text(json.dumps(values), encoding="utf-8")
    try:
        html = report(
            contender("<i>conv</i> & $x", "conv-0"),
            contender("b", "conv-0"),
            title="<u>t</u>",
            notes=["<s>n</s>"],
            command="a <p> && b",
        )
    finally:
        metadata.write_text(before, encoding="utf-8")
    page = Page(html)
    assert not {"b", "i", "u", "s"} & {tag for tag, _ in page.elements}
    assert "<b>x</b>" in page.words
    assert "<i>conv</i> & $x" in page.words
    assert "a <p> && b" in page.words


def test_many_classes_are_listed_by_their_confusions(contender, report, monkeypatch):
    monkeypatch.setattr("regard.compare.classification.LARGEST_TABLE", 9)
    html = report(contender("conv", "conv-0"))
    pairs = rows(html, "pairs")
    counts = [int(count) for _, _, count in pairs]
    assert 0 < len(pairs) <= 20
    assert counts == sorted(counts, reverse=True)
    assert all(truth != taken for truth, taken, _ in pairs)
    assert '<table class="confusion' not in html


def test_contenders_on_other_data_are_an_error(runs, contender, report, tmp_path):
    train(load_recipe("vit-digits", ["train.max_steps=1", "data.split_seed=1"]), tmp_path / "other")
    other = Contender("other", (tmp_path / "other",), ACCURACY, (0.1,), 1, 1, 1.0, None)
    with pytest.raises(RegardError, match="not trained on the same data"):
        report(contender("conv", "conv-0"), other)


def test_a_run_that_has_not_ended_and_a_missing_folder_are_errors(runs, contender, report, tmp_path):
    with pytest.raises(RegardError, match="holds no run"):
        report(Contender("none", (tmp_path,), ACCURACY, (0.1,), 1, 1, 1.0, None))
    with pytest.raises(RegardError, match="at least one contender"):
        report()
    with pytest.raises(RegardError, match="is not a folder"):
        write_report(tmp_path / "missing" / "report.html", title="", contenders=[contender("conv", "conv-0")])


@pytest.mark.parametrize(("right", "images"), [(0, 10), (7, 10), (450, 450), (431, 450), (1, 1)])
def test_the_interval_of_one_seed_is_wilsons(right, images):
    z, p = stats.norm.ppf(0.975), right / images
    centre = (p + z**2 / (2 * images)) / (1 + z**2 / images)
    reach = z / (1 + z**2 / images) * math.sqrt(p * (1 - p) / images + z**2 / (4 * images**2))
    expected = (p, max(centre - reach, 0), min(centre + reach, 1))
    assert proportion_interval([p], images) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("accuracies", [(0.91, 0.94), (0.91, 0.94, 0.99), (0.5, 0.51, 0.52, 0.49, 0.505)])
def test_the_interval_over_seeds_is_students(accuracies):
    low, high = stats.t.interval(0.95, len(accuracies) - 1, stats.tmean(accuracies), stats.sem(accuracies))
    expected = (stats.tmean(accuracies), max(low, 0), min(high, 1))
    assert proportion_interval(accuracies, 450) == pytest.approx(expected, rel=1e-12)


def test_seeds_that_agree_have_an_interval_of_no_width():
    assert proportion_interval([0.75, 0.75, 0.75], 450) == (0.75, 0.75, 0.75)


@pytest.mark.parametrize(("accuracies", "images"), [((), 10), ((0.5,), 0)])
def test_no_interval_without_a_proportion_and_a_sample(accuracies, images):
    with pytest.raises(RegardError, match="needs a proportion and a sample"):
        proportion_interval(accuracies, images)


def test_what_is_no_proportion_has_an_interval_over_seeds_alone():
    assert score_interval(BITS, [1.75], None) == Interval(1.75, None, None)
    low, high = stats.t.interval(0.95, 2, 2.5, stats.sem([2.0, 2.5, 3.0]))
    found = score_interval(BITS, [2.0, 2.5, 3.0], None)
    assert (found.mean, found.low, found.high) == pytest.approx((2.5, low, high), rel=1e-12)
    assert found.high > 1  # it is not cut to [0, 1]
    assert score_interval(ACCURACY, [0.5], 10) == Interval(*proportion_interval([0.5], 10))


def test_numbers_are_written_for_people():
    assert [human(n) for n in (0.0, 950.0, 999.4, 999.6, 151_050.0, 4.9e6, 17.6e9, 3e12, 5e15)] == [
        *("0", "950", "999", "1 k", "151 k", "4.9 M", "17.6 G", "3 T", "5000 T")
    ]
    assert [three_digits(x) for x in (0.02137, 3.14159, 92.84, 999.7, 1234.4)] == [
        "0.0214",
        "3.14",
        "92.8",
        "1000",
        "1234",
    ]


def test_labels_are_spread_in_their_order():
    moved = spread([0.5, 0.51, 0.1, 0.99, 0.985], gap=0.1)
    assert sorted(range(5), key=lambda i: moved[i]) == [2, 0, 1, 4, 3]
    ordered = sorted(moved)
    assert all(b - a >= 0.1 - 1e-12 for a, b in pairwise(ordered))
    assert max(moved) <= 1
    assert moved[2] == 0.1
