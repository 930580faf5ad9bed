"""Signatures are checked at run time, in one thread; what compiles or exports runs in a process of its own."""

import jaxtyping
import pytest
import torch

jaxtyping.install_import_hook("regard", "beartype.beartype")


# The tests' tensors are small: more threads would only wait for each other.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
