"""What mkdocs calls while it builds the site: pages that are made from the package, and from README and its kin.

`make docs` builds into build/site. Nothing that is made here is committed.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from pymdownx.slugs import slugify

from commands import commands_page
from rooms import ROOMS, room_page
from tables import mixers_page, models_page, recipes_page

ROOT = Path(__file__).parents[2]
# Pages that lie outside of docs/, and what they are called on the site.
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
    "SECURITY.md": "security.md",
}
TABLES: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands_page,
    "reference/recipes.md": recipes_page,
    "reference/mixers.md": mixers_page,
    "reference/models.md": models_page,
}


def on_config(config: Any) -> Any:
    """Anchors of headings as a forge makes them."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: Any) -> Files:
    for path, text in pages():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Without the comments that say how a page is tested."""
    return re.sub(r"<!--.*?-->\n?", "", markdown, flags=re.DOTALL)


def pages() -> Iterator[tuple[str, str]]:
    """The path of each made page, and its Markdown."""
    for file, path in OUTSIDE.items():
        yield path, with_links((ROOT / file).read_text(encoding="utf-8"))
    for path, page in TABLES.items():
        yield path, page()
    for room in ROOMS:
        yield f"reference/{room}.md", room_page(room)


def with_links(text: str) -> str:
    """Links of a page in the root of the repository, as the site has them."""
    text = text.replace("](docs/", "](")
    for file, path in OUTSIDE.items():
        text = text.replace(f"]({file}", f"]({path}")
    return text
