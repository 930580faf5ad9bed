"""Processes that measure: each answers requests, one line of JSON each, so that the caller decides whose turn it is."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from regard.errors import RegardError

PATIENCE = 10.0
"""Seconds that a process has to end when nobody asks it any more."""


class ProcessEndedError(RegardError):
    """A process that should answer has ended. The message is its last word."""

    def __init__(self, status: int, last_line: str) -> None:
        super().__init__(last_line or ("no word why" if status >= 0 else f"it was ended by signal {-status}"))
        self.status, self.last_line = status, last_line


class Worker:
    """Runs a module of the package as a program, and asks it."""

    def __init__(self, module: str, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None):
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe that nobody reads would fill up
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
            env={**os.environ, **(environment or {})},
        )

    def ask(self, request: Any) -> Any:
        """The answer. `ProcessEndedError` where the process ends instead."""
        line = ""
        with suppress(BrokenPipeError):
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line.endswith("\n"):
            raise ProcessEndedError(self._process.wait(), self._last_line())
        return json.loads(line)

    def close(self) -> None:
        """Ends the process: at once if it is at work."""
        with suppress(BrokenPipeError):
            self._process.stdin and self._process.stdin.close()
        try:
            self._process.wait(0 if sys.exc_info()[0] else PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout and self._process.stdout.close()
        self._errors.close()

    def _last_line(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""


def serve(answer: Callable[[Any], Any]) -> None:
    """In such a process: answers until nobody asks any more. An error ends it, and is its last word."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints shall not be taken for an answer
    for line in sys.stdin:
        out.write(json.dumps(answer(json.loads(line))) + "\n")
        out.flush()


def busy_cores(seconds: float = 0.5) -> float | None:
    """How many cores of the machine are at work now; this process waits meanwhile. None where nobody can say.

    The load average would be that of the last minute, in which the caller may have trained.
    """
    try:
        import psutil
    except ImportError:
        return None
    return psutil.cpu_percent(seconds) / 100 * (psutil.cpu_count() or 1)
