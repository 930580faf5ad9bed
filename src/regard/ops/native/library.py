"""Compiles a C++ file of this folder with the system's compiler, once for each machine, and loads it."""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from regard.errors import RegardError
from regard.files import cache_folder
from regard.ops.native.trust import tells_owners, why_not_private

_log = logging.getLogger("regard")

COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-O2", "-march=native", "-std=c++17", "-fopenmp", "-fPIC", "-shared")
SECONDS = 120
"""A compiler that takes longer is broken; it usually takes one or two seconds."""
CANNOT_BE_WRITTEN = "the cache folder cannot be written"


@dataclass(frozen=True)
class NativeState:
    """A library, or the reason why there is none."""

    library: ctypes.CDLL | None
    reason: str
    """The path of the library; or, in a few words, what is missing."""


@lru_cache(maxsize=8)
def load_library(name: str) -> NativeState:
    """The compiled NAME.cpp of this folder. Where that is not possible the state says why, and nothing is raised.

    The result is kept in the user's cache folder, under a key of source, compiler and processor. It is written to
    a temporary file first and then moved, so that a second process never loads half a file. Where there is no such
    folder, or one that others may write to, the library is compiled for this process only.
    """
    source = Path(__file__).with_name(f"{name}.cpp")
    compiler = next((found for found in map(shutil.which, COMPILERS) if found), None)
    if compiler is None:
        return NativeState(None, f"no compiler found ({', '.join(COMPILERS)})")
    try:
        version = _run(compiler, "--version").splitlines()[0]
        key = hashlib.sha256("\0".join([compiler, version, *FLAGS, _processor()]).encode() + source.read_bytes())
        return _cached(source, compiler, f"{name}-{key.hexdigest()[:16]}.so")
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        return NativeState(None, f"{compiler} failed: {_reason(error)}")


def _cached(source: Path, compiler: str, file_name: str) -> NativeState:
    """From the cache, whose file is compiled again if it cannot be loaded; or from a temporary folder."""
    folder, why_not = _folder_to_keep_it()
    target = None if folder is None else folder / file_name
    if target is not None and os.path.lexists(target):
        if distrusted := why_not_private(target):
            target, why_not = None, _refused(distrusted)
        elif _is_whole(target):
            with suppress(OSError):  # compiled on another system
                return NativeState(ctypes.CDLL(str(target)), str(target))
    with tempfile.TemporaryDirectory(prefix="regard-", ignore_cleanup_errors=True) as scratch:
        if tells_owners() and (distrusted := why_not_private(Path(scratch))):
            return NativeState(None, f"no folder to compile in: {distrusted}")
        made = _compiled(source, compiler, Path(scratch))
        try:
            loaded = ctypes.CDLL(str(made))
        except OSError as error:
            return NativeState(None, f"what {compiler} made cannot be loaded: {_reason(error)}")
        if target is not None:
            try:
                _keep(made.read_bytes(), target)
            except OSError:
                target, why_not = None, CANNOT_BE_WRITTEN
    return NativeState(loaded, str(target) if target else f"compiled for this process only: {why_not}")


def _folder_to_keep_it() -> tuple[Path | None, str]:
    """The cache folder; or None, and why the library cannot be kept."""
    if not tells_owners():
        return None, "this system does not tell who owns a file"
    try:
        folder = cache_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        distrusted = why_not_private(folder)
    except RegardError as error:
        return None, str(error)
    except OSError:
        return None, CANNOT_BE_WRITTEN
    return (None, _refused(distrusted)) if distrusted else (folder, "")


def _refused(reason: str) -> str:
    """Said once, since whoever could write there could run programs as this user."""
    _log.warning("the C++ kernel is compiled for this process only, and not kept: %s", reason)
    return reason


def _keep(content: bytes, target: Path) -> None:
    """Writes the library with its hash at the end, which the loader ignores."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="moving-") as beside:
        file = Path(beside) / target.name
        file.write_bytes(content + hashlib.sha256(content).digest())
        file.chmod(0o600)
        file.replace(target)


def _is_whole(file: Path) -> bool:
    """Whether the hash fits. A library that is cut short (full disk) would end the process when it is loaded."""
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
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=SECONDS)
    return done.stdout


def _reason(error: Exception) -> str:
    output = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
    lines = [line for line in (output or "").splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[0] if lines else type(error).__name__).strip()


def _processor() -> str:
    """The processor's model and its instruction sets, as far as the system reports them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        wanted = ("model name", "flags", "Features", "CPU part")
        return "\n".join(dict.fromkeys(line for line in lines if line.split("\t")[0].strip(": ") in wanted))
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
