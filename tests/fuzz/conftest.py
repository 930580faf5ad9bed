"""How many cases a fuzzer tries: some dozens in `make test`, some hundreds in `.ci/run`, without end in `make fuzz`.

Files are called test_fuzz_*.py, since no two files of the tests may have one name. A fuzzer takes `fuzz_cases` and
loops over it; each number is the seed of one case, so that a failure names its case:

    def test_no_mutated_file_gives_a_traceback(fuzz_cases, tmp_path):
        for seed in fuzz_cases: ...
"""

import itertools
import os
from collections.abc import Iterable

import pytest

QUICK, FULL = 30, 300


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each fuzzer twice: a quick one, and a slow one with other seeds. Under REGARD_FUZZ=endless it never ends."""
    if "fuzz_cases" not in metafunc.fixturenames:
        return
    if os.environ.get("REGARD_FUZZ") == "endless":
        metafunc.parametrize("fuzz_cases", [itertools.count(FULL)], ids=["endless"])
        return
    slow = pytest.param(range(QUICK, FULL), marks=pytest.mark.slow, id="full")
    metafunc.parametrize("fuzz_cases", [pytest.param(range(QUICK), id="quick"), slow])


@pytest.fixture
def fuzz_cases(request: pytest.FixtureRequest) -> Iterable[int]:
    return request.param
