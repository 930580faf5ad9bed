"""Compiling on first use: whatever is missing or broken, there is an answer, and never half a file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from regard.files import cache_folder
from regard.ops.native import load_library

TRY = """
import torch
from regard.ops import local_attention, native_state
q, k, v = torch.randn(3, 1, 2, 17, 19, 5)
out = local_attention(q, k, v, window=3)
torch.testing.assert_close(out, local_attention(q, k, v, window=3, impl="math"), rtol=1e-4, atol=1e-5)
state = native_state()
print("on" if state.library else "off", state.reason)
"""


def run(cache: Path, path: str | None = None) -> str:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    if path is not None:
        environment["PATH"] = path
    done = subprocess.run(
        [sys.executable, "-c", TRY], capture_output=True, text=True, env=environment, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def compiler_of(folder: Path, script: str) -> str:
    """A folder for PATH with a compiler that does what `script` says."""
    folder.mkdir()
    file = folder / "c++"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def _needs_a_compiler():
    state = load_library("local_attention")
    if state.library is None:
        pytest.skip(f"no native path: {state.reason}")


def test_it_is_compiled_once(tmp_path):
    _needs_a_compiler()
    assert run(tmp_path).startswith("on")
    (made,) = (tmp_path / "regard").iterdir()
    before = made.stat().st_mtime_ns
    assert run(tmp_path) == f"on {made}"
    assert made.stat().st_mtime_ns == before


def test_no_compiler(tmp_path):
    assert run(tmp_path, path=str(tmp_path)) == "off no compiler found (c++, g++, clang++)"


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo 'fatal error: the disk ate it' >&2; exit 1", "failed: fatal error: the disk ate it"),
        pytest.param(
            '[ "$1" = --version ] && echo fine && exit; echo "x.cpp:1: error: no such flag" >&2; exit 1',
            "no such flag",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            '[ "$1" = --version ] && echo fine && exit; for last; do :; done; echo nonsense > "$last"',
            "cannot be loaded",
            marks=pytest.mark.slow,
        ),
        pytest.param("exit 0", "failed", marks=pytest.mark.slow),
    ],
)
def test_a_broken_compiler(tmp_path, script, told):
    found = run(tmp_path / "cache", path=compiler_of(tmp_path / "bin", script))
    assert found.startswith("off")
    assert told in found
    left = list((tmp_path / "cache").rglob("*.so"))
    assert not left


@pytest.mark.slow
def test_a_cache_that_cannot_be_written(tmp_path):
    _needs_a_compiler()
    (tmp_path / "regard").write_text("a file in the place of the folder")
    assert run(tmp_path).startswith("on compiled for this process only")


@pytest.mark.slow
def test_half_a_file_is_made_anew(tmp_path):
    _needs_a_compiler()
    run(tmp_path)
    (made,) = (tmp_path / "regard").iterdir()
    whole = made.read_bytes()
    made.write_bytes(whole[: len(whole) // 2])
    assert run(tmp_path) == f"on {made}"
    assert len(made.read_bytes()) == len(whole)


@pytest.mark.slow
def test_two_processes_at_once(tmp_path):
    _needs_a_compiler()
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    both = [
        subprocess.Popen([sys.executable, "-c", TRY], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    told = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all(line.startswith("on") for line in told)
    assert len(list((tmp_path / "regard").iterdir())) == 1


def test_the_cache_lies_where_the_system_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "regard"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "regard"
