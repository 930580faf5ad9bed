"""Times mixers at any number of tokens, each in a process of its own, whose memory is bounded.

Run as a program by `scale.py`, it imports PyTorch once and forks a warm process for each mixer that is asked for. One
that ran out of memory ends, and is forked again. Where there is no fork, one process serves all, without a bound.
"""

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Any

import torch

from regard.compare.processes import serve
from regard.errors import is_out_of_memory, one_line
from regard.layers import Grid
from regard.mixers import create_mixer

SAMPLE_SECONDS = 2e-3
"""A sample of a shorter call is the mean of several."""
LONG = 0.3
"""Seconds; a call that takes longer is not run once before, to be warm."""

Request = Mapping[str, Any]
"""mixer, side, step ("forward" or "training"), samples, expected (seconds a call, or None)."""


def measured(request: Request, settings: Mapping[str, Any]) -> dict[str, Any]:
    """{"seconds": [...]}: the time of a call in each sample; or "failed", and why."""
    try:
        work = _work(request, settings)
        expected = request["expected"]
        if expected is None or expected < LONG:
            work()  # compiles what has to be compiled
            expected = _timed(work, 1)
        calls = max(1, min(50, round(SAMPLE_SECONDS / max(expected, 1e-7))))
        return {"seconds": [_timed(work, calls) for _ in range(request["samples"])]}
    except (MemoryError, RuntimeError) as error:
        return {"failed": "memory" if is_out_of_memory(error) else one_line(error)}
    except Exception as error:  # RegardError: a mixer that does not take the size
        return {"failed": one_line(error)}


def _timed(work: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - start) / calls


def _work(request: Request, settings: Mapping[str, Any]) -> Callable[[], object]:
    """One image through one mixer: forward, or a step of training with it."""
    device = torch.device(settings["device"])
    grid = Grid(request["side"], request["side"])
    torch.manual_seed(0)
    mixer = create_mixer(request["mixer"], settings["embed_dim"], num_heads=settings["num_heads"], grid=grid).to(device)
    x = torch.randn(1, grid.num_tokens, settings["embed_dim"], device=device)

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()

    def forward() -> None:
        with torch.no_grad():
            mixer(x, grid=grid)
        wait()

    if request["step"] == "forward":
        mixer.eval()
        return forward
    x.requires_grad_()  # as within a model
    parameters = list(mixer.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=0.0) if parameters else None
    gradient = torch.randn_like(x)

    def step() -> None:
        mixer(x, grid=grid).backward(gradient)
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()
        x.grad = None
        wait()

    return step


class Forked:
    """A process of one mixer."""

    alive: dict[str, "Forked"] = {}  # noqa: RUF012 - of this process

    def __init__(self, mixer: str, settings: Mapping[str, Any]) -> None:
        to_read, asks = os.pipe()
        answers, to_write = os.pipe()
        self.process = os.fork()
        if not self.process:
            for other in self.alive.values():  # their ends are seen by them only when nobody holds them
                other.close_pipes()
            os.close(asks)
            os.close(answers)
            _bounded(settings)
            try:
                _answer(os.fdopen(to_read, encoding="utf-8"), os.fdopen(to_write, "w", encoding="utf-8"), settings)
            finally:
                os._exit(0)
        os.close(to_read)
        os.close(to_write)
        self.asks = os.fdopen(asks, "w", encoding="utf-8")
        self.answers = os.fdopen(answers, encoding="utf-8")
        self.alive[mixer] = self

    def close_pipes(self) -> None:
        for pipe in (self.asks, self.answers):
            with suppress(OSError):
                pipe.close()

    @classmethod
    def ask(cls, request: Request, settings: Mapping[str, Any]) -> dict[str, Any]:
        """From the mixer's process, which is forked where there is none."""
        mixer = request["mixer"]
        one = cls.alive.get(mixer) or cls(mixer, settings)
        line = ""
        with suppress(BrokenPipeError):
            one.asks.write(json.dumps(request) + "\n")
            one.asks.flush()
            line = one.answers.readline()
        found: dict[str, Any] = json.loads(line) if line else {}
        if not line or found.get("failed") == "memory":  # it has ended
            one.close_pipes()
            _, status = os.waitpid(one.process, 0)
            del cls.alive[mixer]
            if not line:
                number = os.waitstatus_to_exitcode(status)
                # The system ends a process whose memory it needs, without a word.
                found = {"failed": "memory" if number == -signal.SIGKILL else f"the process ended with {number}"}
        return found


def _answer(requests: IO[str], answers: IO[str], settings: Mapping[str, Any]) -> None:
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    for line in requests:
        found = measured(json.loads(line), settings)
        answers.write(json.dumps(found) + "\n")
        answers.flush()
        if found.get("failed") == "memory":
            return


def _bounded(settings: Mapping[str, Any]) -> None:
    """Bounds this process's memory, and ends it with its parent, as far as the system can do that."""
    limit = int(settings["memory_gb"] * 2**30)
    if settings["device"].startswith("cuda"):
        fraction = limit / torch.cuda.get_device_properties(settings["device"]).total_memory
        torch.cuda.set_per_process_memory_fraction(min(fraction, 1.0), settings["device"])
    else:
        with suppress(ImportError, OSError, ValueError):
            import resource

            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, of Linux


def main(settings: Mapping[str, Any]) -> None:
    can_fork = sys.platform == "linux"
    if settings["threads"] and not can_fork:
        torch.set_num_threads(settings["threads"])
    serve(lambda request: (Forked.ask if can_fork else measured)(request, settings))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
