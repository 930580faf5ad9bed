"""The report of runs that read and write text."""

import html as escaping
import re

import pytest
from scipy import stats

from regard.compare import Contender, Cost, Metric, contender, write_report
from regard.compare.next_token import prompt_of
from regard.compare.seq2seq import _differences, _spread
from regard.compare.task_view import printable
from regard.compare.task_views import task_view_of
from regard.data import ByteTokenizer
from regard.errors import RegardError
from regard.tasks import Task, create_task
from regard.training import Run, load_predictor


@pytest.fixture
def report(tmp_path):
    def write(*contenders, **options):
        path = tmp_path / "report.html"
        write_report(path, title="A report", contenders=contenders, **options)
        return path.read_text(encoding="utf-8")

    return write


def plain(html):
    """The words of a page or a piece of it."""
    html = re.sub(r"<(style|script|svg).*?</\1>", " ", html, flags=re.DOTALL)
    return " ".join(escaping.unescape(re.sub(r"<[^>]*>", "", html)).split())


def rows(html, which):
    """The cells of each row of the first table of a class, as they stand."""
    table = re.search(rf'<table class="{which}".*?</table>', html, re.DOTALL).group()
    body = table[table.index("<tbody>") :]
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in body.split("</tr>")[:-1]]


def texts(html, which):
    return [[escaping.unescape(re.sub(r"<[^>]*>", "", cell)) for cell in row] for row in rows(html, which)]


def test_a_page_of_pairs_says_what_was_done(pairs_run, pairs_file, report):
    text = plain(report(contender("mine", [pairs_run], with_cost=False), command="regard train x"))
    for words in (
        f"transformer_mini, with the token mixer attention, was trained on 152 pairs of pairs:{pairs_file} for 2 "
        "steps, and tested on 17 pairs that it had not seen.",
        "152 for training, 17 held out; split drawn from seed 0",
        "bytes, a vocabulary of 259",
        "in batches of 7 pairs",
        "Exact match is the fraction of held-out pairs",
        "Wilson’s, for a proportion of 17 pairs",
        "FLOPs a pair, the longest",
    ):
        assert words in text
    assert "accuracy" not in text


def test_the_table_of_pairs_holds_exact_match_and_wilsons_interval(pairs_run, report):
    mine = Contender("mine", (pairs_run,), Metric("exact_match", True), (11 / 17,), 1234, 5678, 92.8, Cost(0.5, 3.0, 7))
    html = report(mine)
    low, high = stats.binomtest(11, 17).proportion_ci(method="wilson")
    interval = f"{100 * low:.1f} to {100 * high:.1f}"
    assert texts(html, "results") == [["mine", "64.7", interval, "1.23 k", "5.68 k", "92.8", "500", "3"]]
    assert "ms a pair, its target given, 7 at once" in html


def test_the_mistakes_are_those_of_the_evaluation(pairs_run, report):
    html = report(contender("mine", [pairs_run], with_cost=False))
    task = create_task(Run.open(pairs_run).recipe())
    found = load_predictor(pairs_run).evaluate(task.data.val)
    wrong = {found.sources[i]: (found.predictions[i], found.references[i]) for i in found.mistakes()}
    assert wrong  # after two steps
    shown = texts(html, "written")
    assert 0 < len(shown) <= 15
    assert len(shown) == min(len(wrong), 15)
    for source, written, right in shown:
        assert (written if written != "nothing" else "", right) == tuple(map(printable, wrong[source]))
    words = plain(html)
    right = 17 - len(wrong)
    assert f"It wrote {right} of 17 held-out pairs correctly and {len(wrong)} wrongly." in words
    assert '<table class="groups"' not in html
    assert "group" not in rows(html, "written")[0][0]


def test_groups_have_their_own_exact_match(numbers_run, report):
    html = report(contender("mine", [numbers_run], with_cost=False))
    task = create_task(Run.open(numbers_run).recipe())
    figures = load_predictor(numbers_run).evaluate(task.data.val).per_group()
    expected = [[one.name, f"{100 * one.exact_match:.1f}%", "", str(one.pairs)] for one in figures]
    assert texts(html, "groups") == expected
    assert [row[0] for row in expected] == ["de", "en", "es", "fr", "nl"]
    assert "en, nl, fr, de, es" in plain(html)
    assert {row[0] for row in texts(html, "written")} <= {"de", "en", "es", "fr", "nl"}


def test_the_decoder_of_each_model_is_looked_into_for_the_same_pair(pairs_run, recurrent_run, report):
    html = report(
        contender("attention", [pairs_run], with_cost=False), contender("recurrent", [recurrent_run], with_cost=False)
    )
    words = plain(html)
    assert html.count("<svg") == 5  # three plots, two pictures
    assert html.count("cross-attention, mean over heads") == 2
    assert len(set(re.findall(r"The source is “(.*?)”", words))) == 1
    assert words.count("The source is") == 2
    assert "transformer_mini and recurrent_mini were each trained on 152 pairs" in words
    assert '<button type="button">model</button>' in html


def test_a_page_of_text_says_bits_per_byte_and_no_interval(text_run, text_file, report):
    html = report(contender("mine", [text_run], with_cost=False))
    summary, text = Run.open(text_run).summary(), plain(html)
    task = create_task(Run.open(text_run).recipe())
    train, val = len(task.data.train), len(task.data.val)
    for words in (
        f"language_mini, with the token mixer attention, was trained on {train} characters of text:{text_file} for 2 "
        f"steps, and tested on the {val} characters after them.",
        f"{train} characters for training, the {val} after them held out",
        "23 tokens",
        "in batches of 7 windows",
        f"It needs {summary['bits_per_byte']:.3f} bits for each byte of the held-out text",
    ):
        assert words in text
    assert texts(html, "results")[0][:2] == ["mine", f"{summary['bits_per_byte']:.3f}"]
    assert "95% interval" not in html
    assert "held-out bits per byte" in html


def test_a_sample_goes_on_from_the_held_out_text(text_run, report):
    html = report(contender("mine", [text_run], with_cost=False))
    task, writer = create_task(Run.open(text_run).recipe()), load_predictor(text_run)
    sample = re.search(r'<pre class="sample"><span class="prompt">(.*?)</span>(.*?)</pre>', html, re.DOTALL)
    prompt, written = (escaping.unescape(part) for part in sample.groups())
    assert task.data.val.lstrip().startswith(prompt)
    assert 0 < len(prompt) <= 11  # half of the context
    expected = writer.generate(prompt, max_new_tokens=23 - len(prompt), temperature=0.8, top_p=0.9, seed=0)
    # A page reads a carriage return as a line's end; neither is a letter.
    assert written == printable(expected)
    assert "temperature 0.8, top-p 0.9, seed 0" in html


def test_fewer_bits_are_the_best(text_run, report):
    def of(name, *scores):
        return Contender(name, (text_run,) * len(scores), Metric("bits_per_byte", False), scores, 1, 1, 1.0, None)

    html = report(of("a", 1.9138), of("b", 2.25))
    assert 'class="best"' not in html  # of one seed there is no interval
    assert "what other seeds would give is not known" in plain(html)
    assert re.search(r'data-better="lower"><button type="button">bits per byte', html)
    html = report(of("a", 1.5, 1.75), of("b", 2.25))
    low, high = stats.t.interval(0.95, 1, 1.625, stats.sem([1.5, 1.75]))
    assert [row[2] for row in texts(html, "results")] == [f"{low:.3f} to {high:.3f}", "–"]
    assert "The 95% interval is over 2 seeds: Student’s t" in plain(html)


def test_what_is_written_is_escaped(text_run, report, monkeypatch):
    monkeypatch.setattr("regard.tasks.Writer.generate", lambda *_, **__: "<b>x</b>\x00\x1b & more")
    html = report(contender("<i>mine</i>", [text_run], with_cost=False))
    assert "&lt;b&gt;x&lt;/b&gt;\ufffd\ufffd &amp; more</pre>" in html
    assert "<i>mine" not in html


def test_runs_of_two_tasks_are_no_comparison(text_run, pairs_run, report):
    mine, other = (contender(run.name, [run], with_cost=False) for run in (text_run, pairs_run))
    with pytest.raises(RegardError, match="not trained on the same data"):
        report(mine, other)


def test_a_task_without_a_task_view_is_an_error(pairs_recipe):
    class Strange(Task):
        unit, main_metric, larger_is_better, skipped = "sounds", "loudness", True, ()
        recipe = None

        def __init__(self, recipe):
            self.recipe = recipe

    with pytest.raises(RegardError, match="a report on seq2seq cannot be made: it has no task view"):
        task_view_of(Strange(pairs_recipe()))


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        ("  The with statement is used", 18, "The with statement"),
        ("  The with statement is used", 17, "The with"),
        ("word", 2, "wo"),
        ("ééé", 3, "é"),
        ("é", 1, ""),
        (" \n", 9, ""),
        ("a" * 159 + " bcd", 999, "a" * 159),
        ("x " + "a" * 200, 999, "x"),
    ],
)
def test_a_prompt_ends_with_a_word_where_it_can(text, tokens, expected):
    assert prompt_of(text, ByteTokenizer(), tokens) == expected


@pytest.mark.parametrize(
    ("written", "right", "pieces"),
    [
        ("512", "512", [("512", False)]),
        ("5120", "512", [("512", False), ("0", True)]),
        ("592", "512", [("5", False), ("9", True), ("2", False)]),
        ("52", "512", [("5", False), ("2", False)]),
        ("", "512", []),
        ("7", "512", [("7", True)]),
    ],
)
def test_what_differs_is_marked(written, right, pieces):
    assert _differences(written, right) == pieces


def test_mistakes_are_taken_evenly():
    assert _spread([], 5) == []
    assert _spread([3, 4], 5) == [3, 4]
    assert _spread(range(101), 5) == [0, 25, 50, 75, 100]
