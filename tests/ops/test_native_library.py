"""Compiling on first use: whatever is missing or broken, there is an answer, and never half a file."""

import ctypes
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from regard.files import cache_folder
from regard.ops.native import library, load_library
from regard.ops.native.trust import why_not_private

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


def small_library(folder: Path, answer: int) -> bytes:
    """A library with one function, compiled."""
    source = folder / f"{answer}.cpp"
    source.write_text(f'extern "C" int answer() {{ return {answer}; }}')
    made = folder / f"{answer}.so"
    subprocess.run([shutil.which("c++"), "-shared", "-fPIC", source, "-o", made], check=True)
    return made.read_bytes()


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Loads a library that answers 42 through the cache, in which one lies that answers 13; -> (answer, reason)."""
    if shutil.which("c++") is None:
        pytest.skip("no compiler")
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "FLAGS", ("-fPIC", "-shared"))
    other = small_library(tmp_path, 13)
    small_library(tmp_path, 42)
    folder = tmp_path / "cache" / "regard"
    folder.mkdir(parents=True, mode=0o755)
    folder.parent.chmod(0o755)
    planted = folder / "small.so"
    planted.write_bytes(other + hashlib.sha256(other).digest())
    planted.chmod(0o600)

    def load():
        state = library._cached(tmp_path / "42.cpp", "c++", "small.so")
        assert isinstance(state.library, ctypes.CDLL)
        return state.library.answer(), state.reason

    return load, folder, planted


def test_what_this_user_alone_can_write_is_taken_from_the_cache(small):
    load, _, planted = small
    assert load() == (13, str(planted))


def _open_folder(folder, planted):
    folder.chmod(0o777)


def _open_to_a_group(folder, planted):
    folder.chmod(0o775)


def _open_above(folder, planted):
    folder.parent.chmod(0o777)


def _open_file(folder, planted):
    planted.chmod(0o666)


def _linked_file(folder, planted):
    planted.rename(folder / "elsewhere.so")
    planted.symlink_to("elsewhere.so")


def _linked_folder(folder, planted):
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


def _of_another_user(folder, planted):
    os.chown(planted, 12345, 12345)


def _folder_of_another_user(folder, planted):
    os.chown(folder, 12345, 12345)


def _all_of_another_user(folder, planted):
    for part in (planted, folder, folder.parent):
        os.chown(part, 12345, 12345)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_open_folder, "regard can be written by others (chmod go-w makes it yours alone)"),
        (_open_to_a_group, "regard can be written by others (chmod go-w makes it yours alone)"),
        (_open_above, "cache can be written by others"),
        (_open_file, "small.so can be written by others (chmod go-w makes it yours alone)"),
        (_linked_file, "small.so is a link"),
        (_linked_folder, "regard is a link"),
        (_of_another_user, "small.so belongs to another user"),
        (_folder_of_another_user, "regard belongs to another user"),
        (_all_of_another_user, "regard belongs to another user"),
    ],
)
def test_what_others_can_write_is_not_run(small, change, told, caplog):
    load, folder, planted = small
    if "another" in change.__name__ and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    change(folder, planted)
    before = planted.read_bytes()
    answer, reason = load()
    assert answer == 42
    assert reason.startswith("compiled for this process only: ")
    assert reason.endswith(told)
    assert len(caplog.records) == 1
    assert planted.read_bytes() == before  # nothing is kept there


@pytest.mark.parametrize("gone", ["home", "geteuid", "space"])
def test_what_a_container_or_another_system_lacks(small, gone, monkeypatch, caplog):
    load, folder, _ = small
    shutil.rmtree(folder)
    if gone == "home":

        def no_home():
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", no_home)
        told = "there is no home directory"
    elif gone == "geteuid":
        monkeypatch.delattr(os, "geteuid")
        told = "this system does not tell who owns a file"
    else:
        folder.write_text("a file in the place of the folder")
        told = "the cache folder cannot be written"
    answer, reason = load()
    assert answer == 42
    assert reason.startswith(f"compiled for this process only: {told}")
    assert not caplog.records  # nothing to be warned of


def test_what_is_kept_belongs_to_this_user_alone(small):
    load, folder, _ = small
    shutil.rmtree(folder)
    before = os.umask(0)
    try:
        assert load() == (42, str(folder / "small.so"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "small.so").stat().st_mode) == 0o600
    assert load() == (42, str(folder / "small.so"))


def test_nothing_is_compiled_where_others_can_put_a_library(small, monkeypatch, tmp_path):
    _, folder, _ = small
    shutil.rmtree(folder)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "shared"))
    state = library._cached(tmp_path / "42.cpp", "c++", "small.so")
    assert state.library is None
    assert state.reason == f"no folder to compile in: {tmp_path / 'shared'} can be written by others"


def test_links_above_are_followed(tmp_path):
    """A home that lies elsewhere is usual; but whoever can write where the link, or its target, lies decides."""
    tmp_path.chmod(0o700)
    (tmp_path / "real" / "home").mkdir(parents=True, mode=0o700)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "home").symlink_to("../real/home")
    (tmp_path / "home").symlink_to(tmp_path / "links" / "home")
    (tmp_path / "home" / "cache").mkdir()
    assert why_not_private(tmp_path / "home" / "cache") is None
    for part in ("links", "real"):
        (tmp_path / part).chmod(0o777)
        assert why_not_private(tmp_path / "home" / "cache").endswith(f"{part} can be written by others")
        (tmp_path / part).chmod(0o1777)  # as /tmp is
        assert why_not_private(tmp_path / "home" / "cache") is None
        (tmp_path / part).chmod(0o755)


@pytest.mark.slow
def test_a_user_without_name_and_home(tmp_path):
    _needs_a_compiler()
    environment = {key: value for key, value in os.environ.items() if key not in ("HOME", "XDG_CACHE_HOME", "TMPDIR")}
    as_nobody = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"]
    command = [*as_nobody, sys.executable, "-c"]
    if shutil.which("setpriv") is None or subprocess.run([*command, ""], check=False, cwd="/").returncode:
        pytest.skip("no other user can be taken here")
    done = subprocess.run([*command, TRY], capture_output=True, text=True, env=environment, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("on compiled for this process only: there is no home directory")
