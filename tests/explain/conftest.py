"""Pages in a browser: one Chromium for all of these tests, skipped with the reason where there is none."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# The page says of itself that its view is drawn, the small maps too.
DRAWN = "html[data-drawn=all]"
# An error of its scripts ends the waiting; it is found in the log.
BROKEN = """for (const kind of ["error", "unhandledrejection"]) addEventListener(kind, () => {
  document.documentElement.dataset.drawn = "all";
});"""


@pytest.fixture(scope="package")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=program, args=["--no-sandbox"])


@pytest.fixture
def opened(chromium: Any) -> Iterator[Callable[..., Any]]:
    """opened(file, hash, width): a page that is drawn. At the end nothing was logged and nothing asked for.

    until: a selector of what is waited for; before: a script that runs before the page's; more: of the context.
    """
    log: list[str] = []
    contexts: list[Any] = []

    def start(
        file: Path,
        hash: str = "",
        width: int = 1280,
        scheme: str = "light",
        *,
        until: str = DRAWN,
        before: str = "",
        **more: Any,
    ) -> Any:
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **more)
        context.set_default_timeout(0)  # a busy machine is no failure; pytest ends what hangs
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(BROKEN + before)
        page.on("console", lambda message: log.append(message.text))
        page.on("pageerror", lambda error: log.append(str(error)))
        page.on("request", lambda asked: log.append(asked.url) if not asked.url.startswith("file:") else None)
        page.goto(file.as_uri() + hash)
        page.wait_for_selector(f"{until}, {DRAWN}", state="attached")
        return page

    yield start
    for context in contexts:
        context.close()
    assert log == []


@pytest.fixture
def serious() -> Callable[[Any], list[Any]]:
    """serious(page): what axe finds serious or critical, and what is wider than the window, on a telephone and a
    screen, light and dark."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")

    def look(page: Any) -> list[Any]:
        found: list[Any] = []
        for width in (390, 1280):
            for scheme in ("light", "dark"):
                page.set_viewport_size({"width": width, "height": 844})
                page.emulate_media(color_scheme=scheme)
                page.wait_for_selector(DRAWN)
                answer = axe.Axe().run(page).response
                assert len(answer["passes"]) > 5
                wrong = [one for one in answer["violations"] if one["impact"] in ("serious", "critical")]
                if page.evaluate("document.documentElement.scrollWidth") > width:
                    wrong.append("wider than the window")
                found += [(width, scheme, one) for one in wrong]
        return found

    return look
