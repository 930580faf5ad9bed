"""Which version of the code a figure comes from."""

import subprocess
from functools import cache
from pathlib import Path


@cache
def commit() -> str | None:
    """The commit of the checkout that the package is in, with + where files were changed; None where it is none."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=10).stdout.strip()

    try:
        found = git("rev-parse", "--short", "HEAD")
        return f"{found}{'+' if found and git('status', '--porcelain', '-uno') else ''}" or None
    except (OSError, subprocess.SubprocessError):
        return None
