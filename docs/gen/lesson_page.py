"""Writes docs/lesson.html: one file of the small models of lesson_models.py and the scripts of docs/gen/lesson.

Run: make lesson, or .venv/bin/python docs/gen/lesson_page.py
"""

import json
import re
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from lesson_models import Small, accuracies, held_out, load_models
from regard.explain.page.writer import BROWSERS, HERE, packed, policy_of
from regard.files import printable

ROOM = Path(__file__).parent / "lesson"
FILE = ROOM.parents[1] / "lesson.html"
IMPORT = re.compile(r'^import (\{[^}]*\}) from "([^"]+)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:const|function\*?|class|async function) (\w+))", re.MULTILINE)


def lesson_html() -> str:
    models = load_models()
    about = {
        "models": [small.about() for small in models.values()],
        "accuracies": accuracies(),
        "examples": examples(),
    }
    style = (ROOM / "lesson.css").read_text(encoding="utf-8")
    trouble = (HERE / "trouble.js").read_text(encoding="utf-8")
    code = {"style": style, "trouble": trouble, "script": bundled(ROOM / "lesson.js")}
    pieces = {"about": packed(json.dumps(about).encode())} | {name: packed(halves(one)) for name, one in models.items()}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROOM), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("lesson.html.j2").render(
        policy=policy_of(code),
        browsers=BROWSERS,
        **{name: Markup(text) for name, text in code.items()},
        pieces={name: Markup(text) for name, text in pieces.items()},
    )
    return printable(page.lstrip() + "\n")


def bundled(main: Path) -> str:
    """A module and all that it imports as one script. Each is a function that returns what it exports, so that their
    names do not meet."""
    written: dict[Path, str] = {}

    def write(file: Path) -> None:
        text = file.read_text(encoding="utf-8")
        for _, name in IMPORT.findall(text):
            other = (file.parent / name).resolve()
            if other not in written:
                write(other)
        exported = EXPORT.findall(text)
        body = IMPORT.sub(lambda found: f"const {found[1]} = {called(found[2])};\n", EXPORT.sub("", text))
        written[file] = f"const {called(file.name)} = (() => {{\n{body}return {{ {', '.join(exported)} }};\n}})();\n"

    write(main.resolve())
    return "\n".join(written.values())


def called(file: str) -> str:
    """The name of a module's exports."""
    return f"of_{Path(file).stem}"


def halves(small: Small) -> bytes:
    """The numbers of all weights, in the order of `about`'s shapes: first the lower byte of each, then the higher.

    The higher bytes, sign and exponent, are alike; side by side they take less room.
    """
    numbers = b"".join(weight.numpy().astype("<f2").tobytes() for weight in small.weights.values())
    return numbers[::2] + numbers[1::2]


def examples() -> list[dict[str, Any]]:
    """The first digit of each kind that no model was trained on, as ink from 0 to 16."""
    images, labels = held_out()
    found = []
    for label in range(10):
        image = images[labels == label][0]
        found.append({"label": label, "counts": (image.float() * (16 / 255)).round().int().flatten().tolist()})
    return found


def main() -> None:
    html = lesson_html()
    FILE.write_text(html, encoding="utf-8")
    print(f"{FILE}: {len(html.encode()):,} bytes")


if __name__ == "__main__":
    main()
