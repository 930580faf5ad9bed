"""What a figure was measured on."""

import ctypes
import gc
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from regard.errors import RegardError
from regard.layers.local_attention_2d import LocalAttention2d
from regard.mixers.local import Local
from regard.ops.local.native import native_state
from regard.ops.precision import has_bf16 as has_bf16

PACKAGES = ("regard", "torch", "torchvision", "accelerate", "safetensors", "numpy")


def is_main_process() -> bool:
    """False in all but one of the processes that torchrun or accelerate started."""
    return int(os.environ.get("RANK", "0")) == 0


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine() -> dict[str, str | int]:
    """Processor, cores, threads, memory and accelerator."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "memory_gb": _memory_gb(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def most_workers() -> int:
    """The most processes that read data beside a training: four for each core, or 8."""
    return max(8, 4 * (os.cpu_count() or 1))


def require_workers(number: int) -> None:
    """RegardError for more worker processes than the machine has use for: each takes the memory of a program."""
    if number > most_workers():
        raise RegardError(
            f"data.num_workers is {number}; on this machine it is at most {most_workers()}, four for each core"
        )


def compile_native(model: nn.Module) -> None:
    """Compiles what is compiled on first use, if the model has local attention: so that no step pays for it."""
    if any(isinstance(module, Local | LocalAttention2d) for module in model.modules()):
        native_state()


def seconds_of(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def cuda_devices() -> str:
    """ "only cuda:0 here"; or that there is none, and why that may be."""
    if count := torch.cuda.device_count():
        return f"only {', '.join(f'cuda:{index}' for index in range(count))} here"
    if torch.version.cuda is None:
        return (
            f"no CUDA device here: torch {torch.__version__} is a build without CUDA; "
            "https://pytorch.org/get-started/locally names the command that installs one with it"
        )
    return "no CUDA device here; `nvidia-smi` lists those that have a driver, CUDA_VISIBLE_DEVICES can hide them"


def create_accelerator(device: str) -> Accelerator:
    """The accelerator for `train.device`: auto, cpu, cuda, cuda:1, mps. RegardError where torch has no such device."""
    kind, _, index = device.partition(":")
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}.get(kind, 1)
    if int(index or 0) >= count:
        there = cuda_devices() if kind == "cuda" else "no Apple GPU here"
        raise RegardError(f"train.device is {device}: PyTorch has {there}")
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1 and not torch.distributed.is_initialized()
    if kind == "cuda" and (index or alone):
        torch.cuda.set_device(int(index or 0))
    if alone:  # Accelerate keeps the device of a process's first training for all that follow
        AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=kind == "cpu", mixed_precision="no")
    if kind != "auto" and accelerator.device.type != kind:
        raise RegardError(f"train.device is {device}, but Accelerate takes {accelerator.device}")
    return accelerator


def peak_memory_mb(device: torch.device) -> float:
    """The most memory held so far, in MB: what PyTorch allocated on a GPU, else this process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # on Windows
        return _peak_of_psutil() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, kilobytes elsewhere


def _peak_of_psutil() -> int:
    """Bytes; of a system that keeps no peak, what is held now; 0 where nobody can say."""
    try:
        import psutil
    except ImportError:
        return 0
    memory = psutil.Process().memory_info()
    return int(getattr(memory, "peak_wset", memory.rss))


def _memory_gb() -> int | str:
    try:
        import psutil
    except ImportError:
        return "unknown"
    return round(psutil.virtual_memory().total / 2**30)


def memory_above_mb(work: Callable[[], object], device: torch.device) -> float:
    """The most memory in MB that `work` takes above the level before it, after one run of it to warm up.

    The resident set of a process never falls by itself, so measure each contender in a process of its own.
    """
    work()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    status = Path("/proc/self/status")
    try:
        ctypes.CDLL(None).malloc_trim(0)  # gives the freed pages back, so that they count again
        # Sets the high-water mark to the present level.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except (OSError, AttributeError, TypeError):  # neither Linux nor glibc, or a container that allows no writing here
        before_mb = peak_memory_mb(device)
        work()
        return peak_memory_mb(device) - before_mb
    before_kb = _status_kb(status, "VmRSS")
    work()
    return (_status_kb(status, "VmHWM") - before_kb) / 2**10


def _status_kb(status: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text(encoding="ascii").splitlines() if name in line)


def _processor() -> str:
    with suppress(OSError, UnicodeDecodeError):  # of other systems than Linux
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
