"""Tables that are the same at each call, such as which pixels a window holds."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def kept(maxsize: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Keeps the last results of a function that makes tensors.

    Not while compiling or exporting: the tensors are placeholders then, which would break every later call. And never
    as inference tensors, which could not be used in training.
    """

    def decorate(make: Callable[P, T]) -> Callable[P, T]:
        remembered = lru_cache(maxsize)(torch.inference_mode(False)(make))

        @wraps(make)
        def table(*args: P.args, **kwargs: P.kwargs) -> T:
            if torch.compiler.is_compiling():
                return make(*args, **kwargs)
            return remembered(*args, **kwargs)  # type: ignore[arg-type] # they are hashable

        return table

    return decorate
