"""Lint and types of the JavaScript of pages; skipped where node or what npm installs is not there."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("src/regard/explain/page", "docs/gen/lesson")


@pytest.mark.slow
@pytest.mark.parametrize("command", [["eslint", *FOLDERS], ["tsc", "--project", "tsconfig.json"]])
def test_lint_and_types_of_the_javascript(command):
    program = ROOT / "node_modules" / ".bin" / command[0]
    if shutil.which("node") is None or not program.exists():
        pytest.skip("node or node_modules is not there: npm ci installs it")
    answer = subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_both_cover_every_folder():
    for folder in FOLDERS:
        assert f'"{folder}/*.js"' in (ROOT / "tsconfig.json").read_text(encoding="utf-8")
        assert folder in (ROOT / "package.json").read_text(encoding="utf-8")
