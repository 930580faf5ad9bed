"""Compiles a C++ file of this folder with the system's compiler, once for each machine, and loads it."""

import ctypes
import hashlib
import platform
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from regard.files import cache_folder

COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-O2", "-march=native", "-std=c++17", "-fopenmp", "-fPIC", "-shared")
# A compiler that takes longer than this (it takes one or two) is taken for broken.
SECONDS = 120


@dataclass(frozen=True)
class NativeState:
    """A library, or the reason why there is none."""

    library: ctypes.CDLL | None
    reason: str
    """Where it lies; or in a few words what is missing."""


@lru_cache(maxsize=8)
def load_library(name: str) -> NativeState:
    """The compiled NAME.cpp of this folder. Where that is not possible the state says why, and nothing is raised.

    The result is kept in the user's cache folder, under a key of source, compiler and processor. It is written beside
    its place and moved there, so that processes that compile at once do not see each other's half files; where that
    folder cannot be written, the library lives as long as the process.
    """
    source = Path(__file__).with_name(f"{name}.cpp")
    compiler = next((found for found in map(shutil.which, COMPILERS) if found), None)
    if compiler is None:
        return NativeState(None, f"no compiler found ({', '.join(COMPILERS)})")
    try:
        version = _run(compiler, "--version").splitlines()[0]
        key = hashlib.sha256("\0".join([source.read_text(), compiler, version, *FLAGS, _processor()]).encode())
        return _cached(source, compiler, f"{name}-{key.hexdigest()[:16]}.so")
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        return NativeState(None, f"{compiler} failed: {_reason(error)}")


def _cached(source: Path, compiler: str, file_name: str) -> NativeState:
    """From the cache, where a file that cannot be loaded is made anew; or from a folder that goes away again."""
    target = cache_folder() / file_name
    if _is_whole(target):
        with suppress(OSError):  # made on another system
            return NativeState(ctypes.CDLL(str(target)), str(target))
    with tempfile.TemporaryDirectory(prefix="regard-") as scratch:
        made = _compiled(source, compiler, Path(scratch))
        try:
            loaded = ctypes.CDLL(str(made))
        except OSError as error:
            return NativeState(None, f"what {compiler} made cannot be loaded: {_reason(error)}")
        try:
            _keep(made.read_bytes(), target)
        except OSError:
            return NativeState(loaded, "compiled for this process only: the cache folder cannot be written")
    return NativeState(loaded, str(target))


def _keep(content: bytes, target: Path) -> None:
    """With its own hash at the end, which a loader does not look at."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="moving-") as beside:
        file = Path(beside) / target.name
        file.write_bytes(content + hashlib.sha256(content).digest())
        file.replace(target)


def _is_whole(file: Path) -> bool:
    """A library that a full disk has cut short would not fail to load, but end the process."""
    try:
        content = file.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(content[:-32]).digest() == content[-32:]


def _compiled(source: Path, compiler: str, folder: Path) -> Path:
    made = folder / "library.so"
    _run(compiler, *FLAGS, str(source), "-o", str(made))
    return made


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS).stdout


def _reason(error: Exception) -> str:
    told = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
    lines = [line for line in (told or "").splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[0] if lines else type(error).__name__).strip()


def _processor() -> str:
    """What decides which instructions there are: model and flags where the system tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        wanted = ("model name", "flags", "Features", "CPU part")
        return "\n".join(dict.fromkeys(line for line in lines if line.split("\t")[0].strip(": ") in wanted))
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
