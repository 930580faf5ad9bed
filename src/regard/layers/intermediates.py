"""The intermediates of a model by name: one mechanism for all models.

A model lists its taps, a name and the layer where the tensor passes by: `{"patches": Tap(self.patch_embed), ...}`.
`record` puts hooks on these layers for one forward pass, and removes them. So `forward` itself needs no code for
intermediates, is not slower, and compiles as before. With gradient checkpointing the first computation of a
layer is recorded; the second, in the backward pass, gives the same tensors.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from regard.errors import unknown


def output(inputs: tuple[Any, ...], output: Any) -> Tensor:
    return output


def first_input(inputs: tuple[Any, ...], output: Any) -> Tensor:
    return inputs[0]


class Tap(NamedTuple):
    """Where an intermediate passes by."""

    layer: nn.Module
    read: Callable[[tuple[Any, ...], Any], Tensor] = output
    """The intermediate, out of the layer's positional inputs and its output."""


def layer_taps(name: str, layers: Iterable[nn.Module], inside: Sequence[str] = ()) -> dict[str, Tap]:
    """For each layer: input and output of its mixer, if it has one; outputs of its modules `inside`; its own output."""
    taps = {}
    for i, layer in enumerate(layers):
        mixer = getattr(layer, "mixer", None)
        if mixer is not None:
            taps[f"{name}.{i}.mixer_input"] = Tap(mixer, first_input)
            taps[f"{name}.{i}.mixer_output"] = Tap(mixer)
        taps |= {f"{name}.{i}.{module}": Tap(getattr(layer, module)) for module in inside}
        taps[f"{name}.{i}"] = Tap(layer)
    return taps


def record(
    taps: Mapping[str, Tap], results: Sequence[str], run: Callable[[], Iterable[Tensor]], names: Sequence[str] | None
) -> dict[str, Tensor]:
    """The tensors at the taps while `run` runs, and what it gives under the names `results`; those of `names`, or all.

    RegardError for an unknown name.
    """
    known = [*taps, *results]
    for name in names or ():
        if name not in known:
            raise unknown("intermediate", name, known)
    wanted = known if names is None else names
    found: dict[str, Tensor] = {}

    def hook(name: str, tap: Tap) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def keep(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            found[name] = tap.read(inputs, output)

        return keep

    handles = [tap.layer.register_forward_hook(hook(name, tap)) for name, tap in taps.items() if name in wanted]
    try:
        found |= zip(results, run(), strict=True)
    finally:
        for handle in handles:
            handle.remove()
    return {name: found[name] for name in wanted}
