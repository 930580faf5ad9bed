"""How much memory may be taken: what a container allows counts, not what its host has."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
SHARED_MEMORY = Path("/dev/shm")
UNKNOWN = 2**30  # bytes that are taken to be free where the system does not say
OWN_GROUPS = Path("/proc/self/cgroup")
# The limit of a control group and what it has used: of version 2, and of version 1.
_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


def available_memory() -> int:
    """Bytes that this process may still take: of the machine or of its container, shared by the processes of a node."""
    free = [_of_machine(), *_of_container()]
    return max(min(free), 0) // processes_here()


def room_in_shared_memory() -> int:
    """Bytes free in /dev/shm, where worker processes find each other's tensors; a container has 64 MB unless told."""
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:  # systems without such a folder have no limit of their own
        return available_memory()
    return min(free // processes_here(), available_memory())


def processes_here() -> int:
    """Processes of this training on this machine, as torchrun and accelerate say."""
    stated = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(int(stated), 1) if stated.isdecimal() else 1


def _of_machine() -> int:
    try:
        import psutil  # here, since loading a model must not need what it takes from the system
    except ImportError:
        return UNKNOWN
    return int(psutil.virtual_memory().available)


def _of_container() -> Iterable[int]:
    """Bytes that each control group of this process leaves; what the system keeps of files in memory can be freed."""
    for folder in _groups():
        for limit_file, used_file in _FILES:
            limit, used = _number(folder / limit_file), _number(folder / used_file)
            if limit is not None and used is not None:
                yield limit - max(used - _reclaimable(folder / "memory.stat"), 0)


def _groups() -> set[Path]:
    """The folders of this process's groups and of those around them; a container sees its own group as the root."""
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    found = {CGROUP, CGROUP / "memory"}
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") > 1):
        root = CGROUP if not controllers else CGROUP / "memory"
        if not controllers or "memory" in controllers.split(","):
            own = Path(path.lstrip("/"))
            found.update(root / group for group in (own, *own.parents))
    return found


def _number(file: Path) -> int | None:
    try:
        text = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdecimal() else None  # "max" is no limit


def _reclaimable(file: Path) -> int:
    try:
        lines = [line.split() for line in file.read_text(encoding="ascii").splitlines()]
    except (OSError, UnicodeDecodeError):
        return 0
    values = {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdecimal()}
    return values.get("total_inactive_file", values.get("inactive_file", 0))
