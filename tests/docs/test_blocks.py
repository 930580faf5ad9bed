"""Every command and every piece of Python in README and docs runs, in the order in which its page shows it.

Comments that a reader does not see say how, each before the block that it is about:

    <!-- first: COMMAND -->       what has to be there before (one command a line)
    <!-- tried with: WORDS -->    words after each `regard` command of the block, such as a budget of two steps
    <!-- not run: REASON -->      the block cannot run here

Anywhere on a page `<!-- needs: MODULE -->` says without which package the page is skipped.
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from regard.cli.main import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"sh", "python", "text", "toml", "json"}
MOST_NOT_RUN = 10
EXPORTING = {"export", "benchmark"}  # which the checker of shapes, in this process, would prevent
PART = re.compile(r"<!--\s*(first|tried with|not run):\s*(.*?)-->|^```(\w*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
NEEDS = re.compile(r"<!--\s*needs:\s*(\w+)\s*-->")


def name_of(page: Path) -> str:
    """`README`, `images`, `coming-from/timm`."""
    return page.relative_to(ROOT).with_suffix("").as_posix().removeprefix("docs/")


@dataclass
class Block:
    """A piece of a page: commands or Python, and what the comments before it say."""

    language: str
    text: str
    tried_with: str = ""
    not_run: str = ""


def blocks_of(page: str) -> Iterator[Block]:
    """`first` comes as a block of its own, in the language `first`."""
    waiting = {"tried with": "", "not run": ""}
    for comment, said, language, text in PART.findall(page):
        if comment == "first":
            yield Block("first", said)
        elif comment:
            waiting[comment] = " ".join(said.split())
        else:
            yield Block(language, text, waiting["tried with"], waiting["not run"])
            waiting = dict.fromkeys(waiting, "")


def commands(block: Block) -> list[list[str]]:
    lines = block.text.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.split("#")[0].strip()]


def run(command: list[str]) -> None:
    """In a process of its own."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"


def run_here(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A `regard` command in this process, which has imported everything already."""
    monkeypatch.setattr(sys, "argv", words)
    status: object = 0
    try:
        main()
    except SystemExit as end:
        status = end.code
    assert not status, f"{shlex.join(words)}\n{''.join(capsys.readouterr())}"


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In here; README's first of each sub-command, and first block of Python, in processes of their own."""
    text = page.read_text(encoding="utf-8")
    for module in NEEDS.findall(text):
        pytest.importorskip(module, reason=f"the page needs {module}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # features are the page's own
    tried: set[str] = set()
    for block in blocks_of(text):
        if block.not_run or block.language not in ("first", "sh", "python"):
            continue
        if block.language == "python":
            run_python(block.text, alone=page.stem == "README" and "python" not in tried)
            tried.add("python")
            continue
        for words in commands(block):
            if words[0] != "regard":
                assert block.language == "first", f"{shlex.join(words)}: only `regard` commands are run; say `not run`"
                prepare(words)
                continue
            first = page.stem == "README" and block.language != "first" and words[1] not in tried
            if first or words[1] in EXPORTING or "--engine" in words:
                run([sys.executable, "-m", *words, *shlex.split(block.tried_with)])
                tried.add(words[1])
            else:
                run_here([*words, *shlex.split(block.tried_with)], monkeypatch, capsys)


def run_python(text: str, *, alone: bool) -> None:
    if alone:
        run([sys.executable, "-c", text])
    else:
        exec(compile(text, "a page", "exec"), {"__name__": "__main__"})


def prepare(words: list[str]) -> None:
    """`cp FROM... TO` and `rm FILE...`, with patterns; or `python -c ...`."""
    if words[0] == "python":
        run([sys.executable, *words[1:]])
        return
    found = [str(path) for word in words[1:] for path in sorted(Path().glob(word)) or [word]]
    if words[0] == "cp":
        *sources, target = found
        if len(sources) > 1:
            Path(target).mkdir(parents=True, exist_ok=True)
        for source in sources:
            copy = shutil.copytree if Path(source).is_dir() else shutil.copy
            copy(source, target)
    else:
        assert words[0] == "rm", f"{words[0]}: a `first` knows regard, python, cp and rm"
        for name in found:
            Path(name).unlink()


def test_few_blocks_are_not_run() -> None:
    """Each with its reason; this list is the whole of them."""
    found = {
        f"{page.name}: {block.not_run}"
        for page in PAGES
        for block in blocks_of(page.read_text(encoding="utf-8"))
        if block.not_run
    }
    assert found == NOT_RUN
    assert len(found) <= MOST_NOT_RUN


def test_every_block_says_what_it_is() -> None:
    for page in PAGES:
        for block in blocks_of(page.read_text(encoding="utf-8")):
            assert block.language in LANGUAGES | {"first"}, f"{page.name}: a block of {block.language or 'nothing'}"
            if block.language == "text":
                assert not re.match(r"(\$ )?(regard|pip|python|make) ", block.text), f"{page.name}: {block.text}"


NOT_RUN = {
    "deploy.md: a test of its own calls it",
    "README.md: it installs",
    "install.md: it installs",
    "start.md: it installs",
    "README.md: a test of its own runs it",
    "your-own-photographs.md: it installs",
    "pretrain.md: it trains for ten minutes",
}
