"""Whether a page can be opened in a browser here, and opening it."""

import os
import sys
import webbrowser
from collections.abc import Mapping
from pathlib import Path


def has_screen(environment: Mapping[str, str] = os.environ, platform: str = sys.platform) -> bool:
    """False in CI, over SSH, and on a Unix without a display."""
    if environment.get("CI") or environment.get("SSH_CONNECTION"):
        return False
    if platform in ("win32", "darwin"):
        return True
    return bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


def open_page(page: Path) -> bool:
    """Opens the page where there is a screen; whether it was opened. A browser that does not start is no error."""
    if not has_screen():
        return False
    try:
        return webbrowser.open(page.resolve().as_uri())
    except webbrowser.Error:
        return False
