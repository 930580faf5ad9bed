"""Where numbers stop being finite: the error that says it, and a debugging aid, off unless asked for."""

from typing import Any

from torch import Tensor, nn

from regard.errors import RegardError


class Diverged(RegardError):  # noqa: N818 (a caller reads: except Diverged)
    """A training whose loss or gradient was not finite at `step`."""

    def __init__(self, step: int, message: str) -> None:
        super().__init__(f"step {step}: {message}")
        self.step = step


def watch_finite(model: nn.Module) -> None:
    """From now on a forward pass raises RegardError that names the first layer to see, or to make, a NaN or inf."""
    for name, module in model.named_modules():
        if next(module.children(), None) is None:  # the innermost run first, and say it most exactly
            module.register_forward_hook(_named(name))


def _named(name: str) -> Any:
    def check(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        what = f"{name} ({type(module).__name__})"
        if not all(_is_finite(value) for value in inputs):
            raise RegardError(f"{what}: is the first layer that got numbers which are not finite")
        if not _is_finite(output):
            raise RegardError(f"{what}: is the first layer that made numbers which are not finite")

    return check


def _is_finite(value: Any) -> bool:
    return not isinstance(value, Tensor) or not value.is_floating_point() or bool(value.isfinite().all())
