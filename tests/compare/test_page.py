"""What the page lets run, also in a real browser; and names of any kind in it."""

import base64
import csv
import io
import json
import math
import re
import shutil
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regard.api.training import train_run
from regard.cli.main import main
from regard.compare import Failure, Report, contender, write_report
from regard.draw.names import readable
from regard.files import printable, write_json
from regard.recipes import load_recipe
from regard.training import Run, load_classifier
from regard.training.model_card import model_card

SIZE, EACH = 12, 4
# Names that a file system takes: of classes, of one file each, and of what is not UTF-8.
NAMES = (
    *(
        r"$\frac{$",
        "$5-$10",
        "a_b^c",
        "<script>alert(1)<",
        "&amp;",
        '"',
        '" onclick="x',
        "'",
        "-->",
        "{{ 7*7 }}",
        "{% x %}",
    ),
    *("a\nb", "a\tb", "a\rb", "a\x1b[31mb", "a\u202eb", "\u200f", " ", "x" * 200, "日本", "😀", "caf\udce9", "\udcff"),
)


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory) -> Path:
    """A run, with its report, on classes and images with these names."""
    folder = tmp_path_factory.mktemp("hostile")
    generator = np.random.default_rng(0)
    for name in NAMES:
        (folder / "data" / name).mkdir(parents=True)
        for number in range(EACH):
            pixels = generator.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
            with (folder / "data" / name / f"{name[:60]}-{number}.png").open("wb") as file:
                Image.fromarray(pixels).save(file, "png")
    settings = ("train.max_steps=1", "model.depth=1", "train.device=cpu")
    recipe = load_recipe("small-images", settings, address=f"folder:{folder / 'data'}")
    problems: list[str] = []
    train_run("small-images", recipe, folder / "run", tell=problems.append)
    assert problems == []
    return folder / "run"


class Page(HTMLParser):
    """The elements of a page, its words outside of scripts and styles, and what these hold."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self._open = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        self.inside.get(self._open, self.words).append(data)

    @property
    def policy(self) -> dict[str, str]:
        (found,) = (a["content"] for t, a in self.tags if a.get("http-equiv") == "Content-Security-Policy")
        return dict(rule.split(" ", 1) for rule in found.split("; "))


def hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"


def test_the_policy_names_the_only_script_and_the_only_style(hostile_run, tmp_path):
    one = contender("a", [hostile_run], with_cost=False)
    for contenders in ([one], [one, replace(one, name="b")]):
        write_report(tmp_path / "a.html", title="A", contenders=contenders)
        page = Page((tmp_path / "a.html").read_text(encoding="utf-8"))
        (style,) = page.inside["style"]
        assert page.policy["style-src-elem"] == hashed(style)
        if len(contenders) == 1:
            assert (page.inside["script"], page.policy["script-src"]) == ([], "'none'")
        else:
            (script,) = page.inside["script"]
            assert page.policy["script-src"] == hashed(script)
        assert page.policy["default-src"] == page.policy["base-uri"] == page.policy["form-action"] == "'none'"
        assert page.policy["img-src"] == "data:"
        # Nothing runs by an attribute, and there is one policy, before anything that it is about.
        assert not {key for _, attributes in page.tags for key in attributes if key.startswith("on")}
        assert [tag for tag, _ in page.tags].index("style") > [a.get("http-equiv") for _, a in page.tags].index(
            "Content-Security-Policy"
        )


def test_every_name_stands_in_the_report(hostile_run):
    text = (hostile_run / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.inside["script"]
    titles = {attributes["title"] for tag, attributes in page.tags if tag == "th" and "title" in attributes}
    assert titles == {readable(name) for name in NAMES}
    assert "caf\\udce9" in titles
    assert "49" not in "".join(page.words).split()  # of {{ 7*7 }}
    drawn = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert drawn
    for picture in drawn:
        ET.fromstring(picture)
    # What the run keeps loses nothing.
    assert sorted(json.loads((hostile_run / "metadata.json").read_bytes())["class_names"]) == sorted(NAMES)
    assert sorted(load_classifier(hostile_run).class_names) == sorted(NAMES)


@pytest.mark.slow
def test_every_name_stands_in_tables_and_files(hostile_run, tmp_path, monkeypatch, capsysbinary):
    def told(*arguments: object) -> bytes:
        monkeypatch.setattr(sys, "argv", ["regard", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        return capsysbinary.readouterr().out

    table = told("evaluate", hostile_run, "-o", tmp_path).decode()
    assert "\x1b" not in table
    assert sum(line.startswith(("│", "|")) for line in table.splitlines()) >= len(NAMES)
    for written in ((tmp_path / "evaluation.json").read_bytes(), told("evaluate", hostile_run, "--json")):
        assert sorted(row["name"] for row in json.loads(written.decode())["per_class"]) == sorted(NAMES)
    for rows in ((tmp_path / "evaluation.csv").read_bytes(), told("evaluate", hostile_run, "--csv")):
        head, *others = csv.reader(io.StringIO(rows.decode(), newline=""))
        assert head == ["name", "precision", "recall", "f1", "images"]
        assert sorted(row[0] for row in others) == sorted(map(printable, NAMES))
        assert {len(row) for row in others} == {5}
    image = next((hostile_run.parent / "data" / "\udcff").iterdir())
    drawn = tmp_path / f"{image.stem}-mixing.png"
    assert told("explain", hostile_run, image, "-o", tmp_path).decode() == f"{printable(drawn)}\n"
    assert next(tmp_path.glob("*-mixing.png")).stat().st_size > 10_000


@pytest.mark.slow
def test_a_comparison_of_names(hostile_run, tmp_path):
    one = contender("a", [hostile_run], with_cost=False)
    report = Report(tmp_path / "a.html", title="".join(NAMES), command="\n".join(NAMES))
    hostile = [replace(one, name=name) for name in NAMES[:3]] + [
        replace(one, name=name, runs=(), scores=()) for name in NAMES
    ]
    failures = [Failure(name, name) for name in NAMES]
    assert report.write(hostile, notes=NAMES, failures=failures) == []
    page = Page((tmp_path / "a.html").read_text(encoding="utf-8"))
    assert len(page.inside["script"]) == len(page.inside["style"]) == 1
    heads = [a for tag, a in page.tags if tag == "th" and a.get("scope") == "row"]
    assert len(heads) >= 3 + len(NAMES)


def test_figures_that_are_not_finite_are_told_as_they_are(hostile_run, tmp_path):
    """As of a run whose last evaluation was nan; in its files, null."""
    one = contender("a", [hostile_run], with_cost=False)
    broken = tmp_path / "run"
    shutil.copytree(hostile_run, broken)
    summary = {key: value for key, value in Run(broken).summary().items() if key != "checksum"}
    write_json(Run(broken).summary_file, {**summary, "accuracy": math.nan, "loss": math.inf})
    line = json.dumps({"kind": "val", "step": 1, "epoch": 1.0, "accuracy": None, "loss": None})
    old = json.dumps({"kind": "val", "step": 1, "epoch": 2.0, "accuracy": math.nan, "loss": math.inf})
    with Run(broken).metrics_file.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n{old}\n")
    found = contender("b", [broken], with_cost=False)
    assert math.isnan(found.scores[0])
    write_report(tmp_path / "a.html", title="A", contenders=[one, found])
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    row = re.search(r'<th scope="row">(?:(?!</tr>).)*>b</th>(.*?)</tr>', text, re.DOTALL).group(1)
    cells = re.findall(r'<td data-value="([^"]*)"[^>]*>([^<]*)</td>', row)
    assert cells[:2] == [("", "nan"), ("", "–")]
    assert "The loss of b is not finite on these samples" in text
    write_report(tmp_path / "a.html", title="A", contenders=[one])
    assert "is not finite" not in (tmp_path / "a.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_in_a_browser_the_pages_script_runs_and_no_other(hostile_run, tmp_path, browser):
    one = contender("first", [hostile_run], with_cost=False)
    others = [replace(one, name=name, parameters=size) for name, size in (("second", 10), ("third", 30))]
    write_report(tmp_path / "page.html", title="A", contenders=[replace(one, parameters=20), *others])
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    injected = page.replace(
        "<main>", "<main><script>document.title = 'taken'</script><style>body { color: red }</style>"
    )
    injected = injected.replace("<h2>", "<h2 onclick=\"document.title = 'taken'\">")
    (tmp_path / "injected.html").write_text(injected, encoding="utf-8")
    names = "[...document.querySelectorAll('.results tbody th')].map(head => head.textContent.trim())"
    click = "document.querySelectorAll('.results thead button')[3].click()"
    with browser(tmp_path / "profile") as tab:
        assert tab.open(tmp_path / "page.html") == []
        assert tab.evaluate(names) == ["first", "second", "third"]
        tab.evaluate(click)
        assert tab.evaluate(names) == ["second", "first", "third"]
        assert tab.evaluate("getComputedStyle(document.querySelector('.results')).minWidth") == "736px"
        assert tab.evaluate("getComputedStyle(document.querySelector('svg path')).strokeLinejoin") == "round"

        complaints = tab.open(tmp_path / "injected.html")
        assert sum("inline script" in text for text in complaints) >= 1
        assert sum("inline style" in text for text in complaints) >= 1
        assert tab.evaluate("document.title") == "A"
        tab.evaluate("document.querySelector('h2').click()")
        assert tab.evaluate("document.title") == "A"
        assert tab.evaluate("getComputedStyle(document.body).color") != "rgb(255, 0, 0)"
        tab.evaluate(click)
        assert tab.evaluate(names) == ["second", "first", "third"]


def test_a_model_card_is_markdown_whatever_the_names(hostile_run, monkeypatch):
    recipe = Run(hostile_run).recipe()
    data = recipe.data.model_copy(update={"address": "folder:/a`b``c\n# d\udcff"})
    hostile = recipe.model_copy(update={"title": "<b>1 | 2</b> `x` [y](z)\n# $q$", "data": data})
    monkeypatch.setattr(Run, "recipe", lambda run: hostile)
    card = model_card(Run(hostile_run), "me/mine")
    card.encode()
    lines = card.splitlines()
    assert r"# \<b>1 \| 2\</b> \`x\` \[y](z) # \$q\$" in lines
    assert [line for line in lines if line.startswith("# ")][1:] == []
    assert "trained on ``` folder:/a`b``c # d\\udcff ```." in card
    assert "\n```toml\n" in card.replace("\n````toml\n", "\n```toml\n")
    assert "| accuracy | " in card
    simple = recipe.model_copy(update={"title": "Small images"})
    monkeypatch.setattr(Run, "recipe", lambda run: simple)
    card = model_card(Run(hostile_run), "me/mine")
    assert "\n# Small images\n" in card
    assert f"trained on `{recipe.data.address}`." in card
    assert card.count("\n```toml\n") == 1
