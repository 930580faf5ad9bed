"""The part of a model that does not learn."""

from collections.abc import Callable
from types import MethodType

from torch import nn


def freeze(model: nn.Module, frozen: Callable[[str], bool]) -> None:
    """Stops the parameters whose names are `frozen` from learning.

    A module whose parameters all are stays in evaluation mode, in training too: batch norms keep the statistics that
    they have, and nothing is dropped.
    """
    for name, parameter in model.named_parameters():
        if frozen(name):
            parameter.requires_grad_(False)
    for module in model.modules():
        own = list(module.parameters())
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()
            module.train = MethodType(_stays, module)  # type: ignore[method-assign]


def _stays(module: nn.Module, mode: bool = True) -> nn.Module:
    return module
