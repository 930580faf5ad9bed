"""The command line: in this process where many cases are looked at, in one of its own where that matters."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from regard.cli.main import main

TINY = ("model.depth=1", "model.embed_dim=16", "model.num_heads=2", "train.max_steps=6", "train.batch_size=64")


@dataclass(frozen=True)
class Told:
    """What a command said, and how it ended."""

    status: int
    out: str
    err: str

    def fails(self, *parts: object, status: int = 1) -> str:
        """Asserts that it ended with one line of error that has these parts, and returns the line."""
        assert self.status == status, (self.out, self.err)
        assert "Traceback" not in self.err
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: ")
        for part in parts:
            assert str(part) in lines[0]
        return lines[0]


def settings(*given: str) -> list[str]:
    """Of a run that takes no time, and what else is `given`."""
    return [word for setting in (*TINY, "train.device=cpu", *given) for word in ("--set", setting)]


def started(*arguments: object, **named: Any) -> subprocess.CompletedProcess[str]:
    """`regard ARGUMENTS` in a process of its own."""
    command = [sys.executable, "-m", "regard", *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "160"}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, **named)


@pytest.fixture
def regard(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    """regard(*arguments) -> what `regard ARGUMENTS` tells, in this process."""
    for name, value in {"COLUMNS": "160", "NO_COLOR": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: object) -> Told:
        monkeypatch.setattr(sys, "argv", ["regard", *map(str, arguments)])
        capsys.readouterr()
        status: object = 0
        try:
            main()
        except SystemExit as end:
            status = end.code
        out, err = capsys.readouterr()
        assert isinstance(status, int | None)
        return Told(status or 0, out, err)

    return run


@pytest.fixture(scope="session")
def process_once() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`process` for what is made once."""
    return started


@pytest.fixture
def tiny() -> Callable[..., list[str]]:
    return settings


@pytest.fixture
def process() -> Callable[..., subprocess.CompletedProcess[str]]:
    return started


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Handwritten digits as files, by the command that makes them."""
    folder = tmp_path_factory.mktemp("made") / "digits"
    told = started("data", "make", "digits", folder, "--size", 12)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout == f"1797 images in {folder}; train on them with --data folder:{folder}\n"
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run on the embedded digits, by the real command, and what it said."""
    run = tmp_path_factory.mktemp("trained") / "run"
    told = started("train", "vit-digits", "--out", run, *settings())
    assert told.returncode == 0, told.stderr
    return run, told


@pytest.fixture(scope="session")
def run(trained: tuple[Path, object]) -> Path:
    return trained[0]


@pytest.fixture
def images(digits_folder: Path) -> list[Path]:
    """Three image files."""
    return sorted(digits_folder.rglob("*.png"))[::700]
