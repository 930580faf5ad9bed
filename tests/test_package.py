"""The project's files agree with each other."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import yaml

import regard

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_version_has_one_value() -> None:
    assert regard.__version__ == PROJECT["project"]["version"] == version("regard")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == regard.__version__
    released = f"## {regard.__version__} - {citation['date-released']}"
    assert released in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_constraints_pin_every_direct_dependency() -> None:
    pinned = set(
        re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)
    )
    names = {name.lower().replace("_", "-") for name in pinned}
    extras = [item for extra in PROJECT["project"]["optional-dependencies"].values() for item in extra]
    wanted = {re.split(r"[>=<\[]", item)[0] for item in [*PROJECT["project"]["dependencies"], *extras]} - {"regard"}
    assert {name.lower().replace("_", "-") for name in wanted} <= names


def test_long_files_are_there() -> None:
    reasons = tomllib.loads((ROOT / "tests" / "long_files.toml").read_text(encoding="utf-8"))
    assert all((ROOT / "tests" / name).exists() and reason for name, reason in reasons.items())
