"""Signatures are checked at run time, in one thread; what compiles or exports runs in a process of its own."""

import os

import jaxtyping
import pytest
import torch

jaxtyping.install_import_hook("regard", "beartype.beartype")


# The tests' tensors are small: more threads would only wait for each other.
torch.set_num_threads(1)
if "PYTEST_XDIST_WORKER" in os.environ:  # one process on each core: theirs have one thread as well
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test begins first, so that nobody waits for it alone at the end."""
    items.sort(key=lambda item: item.path.name != "test_readme.py")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
