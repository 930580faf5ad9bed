"""Shapes are checked at run time where tests are about them; one thread; which files take long, and what runs now."""

import os
import signal
import time
import tomllib
from collections import defaultdict
from pathlib import Path

import jaxtyping
import pytest
import torch

jaxtyping.install_import_hook("regard", "beartype.beartype")

TESTS = Path(__file__).parent
# These train, start commands, or give values of wrong types. What they call is checked in its own room's tests, and in
# those marked `shape_checks`.
WITHOUT_SHAPE_CHECKS = ("cli", "compare", "fuzz", "training", "docs")
# Files that take over a minute, each with the reason; they begin first, so that nobody waits for one alone at the end.
LONG_FILES: dict[str, str] = tomllib.loads((TESTS / "long_files.toml").read_text(encoding="utf-8"))

# A background job of a shell ignores the keyboard's interrupt, and so would each process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "pthread_sigmask"):
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

# The tests' tensors are small: more threads would only wait for each other.
torch.set_num_threads(1)
if "PYTEST_XDIST_WORKER" in os.environ:  # one process on each core: theirs have one thread as well
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: order.get(_file(item.nodeid), len(order)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before fixtures, since they may train. Checking each call takes as long as a small model's training itself."""
    wanted = _file(item.nodeid).split("/")[0] not in WITHOUT_SHAPE_CHECKS or "shape_checks" in item.keywords
    jaxtyping.config.update("jaxtyping_disable", not wanted)


def pytest_configure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        config.pluginmanager.register(WhatRuns(config))


class WhatRuns:
    """Says every ten minutes which tests run, and for how long: one that is stopped from outside shows where it was."""

    EVERY = 600.0

    def __init__(self, config: pytest.Config) -> None:
        self.config, self.began, self.said = config, time.monotonic(), time.monotonic()
        self.running: dict[str, float] = {}

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.running[nodeid] = time.monotonic()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.running.pop(nodeid, None)
        now = time.monotonic()
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is None or now - self.said < self.EVERY:
            return
        self.said = now
        tests = ", ".join(f"{name} ({now - start:.0f} s)" for name, start in self.running.items())
        reporter.write_line(f"\nafter {(now - self.began) / 60:.0f} minutes there run {tests or 'no others'}")


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names the files that take over a minute and are not in long_files.toml. Nothing fails on time."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[_file(report.nodeid)] += report.duration
    for name, total in sorted(seconds.items(), key=lambda item: -item[1]):
        if total > 60 and name not in LONG_FILES:
            terminalreporter.write_line(f"{name} took {total:.0f} s; long_files.toml gives no reason for it")


def _file(nodeid: str) -> str:
    """tests/cli/test_errors.py::test_a -> cli/test_errors.py"""
    return nodeid.partition("::")[0].removeprefix("tests/")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
