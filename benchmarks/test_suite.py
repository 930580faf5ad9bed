"""What the test suite costs: seconds by file, by test and by fixture, on two processes.

Run: .venv/bin/python benchmarks/test_suite.py [LABEL] [pytest's arguments]
It keeps its figures beside those of other labels (`now` unless given) in results/test_suite-<processor>.json.
`--junit FILE` reads a run that pytest has written with --junitxml, and runs nothing.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
PYTEST = ["-m", "pytest", "--numprocesses", "2", "--dist", "loadfile", "--no-loadscope-reorder", "-p", "test_suite"]


# pytest loads this file as a plugin (-p test_suite): each test's line in the report then has more than its seconds.
# Nothing here may import regard: the tests' shape checker has to come first.


def _processor_seconds() -> float:
    """Of this process and of those that it started."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    item.stash[_START] = _processor_seconds()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    result = yield
    item.user_properties.append(("processor", _processor_seconds() - item.stash[_START]))
    return result


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any, request: Any) -> Generator[None, object, object]:
    start = time.perf_counter()
    result = yield
    file = fixturedef.baseid.removeprefix("tests/") or "pytest"
    request._pyfuncitem.user_properties.append((f"{file}: {fixturedef.argname}", time.perf_counter() - start))
    return result


_START = pytest.StashKey[float]()


def read(junit: Path) -> dict[str, Any]:
    """The figures in a report that pytest wrote."""
    files: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(int))
    tests: dict[str, float] = {}
    fixtures: defaultdict[str, float] = defaultdict(float)
    suite = next(ElementTree.parse(junit).iter("testsuite"))
    for case in suite.iter("testcase"):
        file = case.get("classname", "").removeprefix("tests.").replace(".", "/") + ".py"
        seconds = float(case.get("time", 0))
        files[file]["tests"] += 1
        files[file]["seconds"] += seconds
        tests[f"{file}::{case.get('name')}"] = seconds
        for one in case.iter("property"):
            name, value = one.get("name", ""), float(one.get("value", 0))
            if name == "processor":
                files[file]["processor_seconds"] += value
            else:
                fixtures[name] += value

    def rounded(figures: Mapping[str, float]) -> dict[str, float]:
        return {name: value if isinstance(value, int) else round(value, 2) for name, value in figures.items()}

    def most(figures: Mapping[str, float], count: int) -> dict[str, float]:
        return rounded(dict(sorted(figures.items(), key=lambda item: -item[1])[:count]))

    return {
        "tests": len(tests),
        "not_passed": {name: int(suite.get(name, 0)) for name in ("failures", "errors", "skipped")},
        "seconds": round(float(suite.get("time", 0)), 1),
        "seconds_of_tests": round(sum(tests.values()), 1),
        "processor_seconds_of_tests": round(sum(one.get("processor_seconds", 0) for one in files.values()), 1) or None,
        "files": {name: rounded(one) for name, one in sorted(files.items(), key=lambda it: -it[1]["seconds"])},
        "sixty_slowest": most(tests, 60),
        "thirty_slowest_fixtures": most(fixtures, 30),
    }


def collecting() -> dict[str, float]:
    """What one process takes to import the package under the shape checker and to collect every test."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime, time.perf_counter()
    subprocess.run([sys.executable, "-m", "pytest", "--collect-only", "-qq"], cwd=ROOT, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    return {"seconds": round(time.perf_counter() - start, 1), "processor_seconds": round(after - before, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("label", nargs="?", default="now")
    parser.add_argument("--junit", type=Path)
    arguments, more = parser.parse_known_args()
    status = 0
    if arguments.junit:
        figures = read(arguments.junit)
    else:
        with tempfile.TemporaryDirectory() as folder:
            junit = Path(folder) / "junit.xml"
            paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
            command = [sys.executable, *PYTEST, f"--junitxml={junit}", *more]
            status = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, check=False).returncode
            figures = {"arguments": more, "collecting": collecting(), **read(junit)}

    from peer import result_path, save

    kept = result_path("test_suite")
    others = json.loads(kept.read_text(encoding="utf-8"))["results"] if kept.exists() else {}
    path = save("test_suite", others | {arguments.label: figures})
    print(f"{figures['tests']} tests, {figures['seconds']} s; saved to {path}")
    sys.exit(status)


if __name__ == "__main__":
    main()
