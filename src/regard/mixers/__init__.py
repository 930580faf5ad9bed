"""Token mixers, one in each file, and MIXERS. To add a mixer, write a file here and add a line to the dict."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from regard.errors import RegardError, unknown
from regard.layers.grid import Grid
from regard.layers.mixer import Mixer
from regard.mixers.attention import Attention
from regard.mixers.base import HeadMixer
from regard.mixers.conv import Conv
from regard.mixers.fourier import Fourier
from regard.mixers.local import Local
from regard.mixers.lstm import LSTM
from regard.mixers.mlp import TokenMLP
from regard.mixers.none import NoMixing
from regard.mixers.performer import Performer, redraw_features

MIXERS: dict[str, type[Mixer]] = {
    "attention": Attention,
    "local": Local,
    "performer": Performer,
    "fourier": Fourier,
    "mlp": TokenMLP,
    "conv": Conv,
    "lstm": LSTM,
    "none": NoMixing,
}

__all__ = [
    "LSTM",
    "MIXERS",
    "Attention",
    "Conv",
    "Fourier",
    "HeadMixer",
    "Local",
    "Mixer",
    "NoMixing",
    "Performer",
    "TokenMLP",
    "create_mixer",
    "mixer_options",
    "one_each",
    "options_for",
    "redraw_features",
]


def create_mixer(
    name: str,
    embed_dim: int,
    *,
    num_heads: int,
    grid: Grid | None,
    options: Mapping[str, Any] | None = None,
    causal: bool = False,
) -> Mixer:
    """The mixer `name` for a model of this width, number of heads and grid; `options` go to its own constructor.

    A model of sequences has no `grid`, because they can have any length. With `causal` a token sees only itself and
    those before it. RegardError for an unknown mixer or option, and for a mixer that does not support sequences, or not
    causally.
    """
    if name not in MIXERS:
        raise unknown("mixer", name, MIXERS)
    options = dict(options or {})
    allowed = mixer_options(name)
    for key in options:
        if key not in allowed:
            if not allowed:
                raise RegardError(f"mixer {name}: takes no options, got {key!r}")
            raise unknown("option", key, allowed, where=f"mixer {name}")
        _check_type(name, key, options[key])
    wanted = inspect.signature(MIXERS[name]).parameters
    if causal:
        if "causal" not in wanted:
            able = ", ".join(other for other in MIXERS if "causal" in inspect.signature(MIXERS[other]).parameters)
            raise RegardError(f"mixer {name}: cannot be causal; those that can: {able}")
        options["causal"] = True
    given = {"num_heads": num_heads, "num_prefix": 0 if grid is None else grid.prefix}
    if grid is not None:
        given["num_tokens"] = grid.num_tokens
    elif "num_tokens" in wanted:
        raise RegardError(f"mixer {name}: is built for one number of tokens, so it cannot mix sequences of any length")
    return MIXERS[name](embed_dim, **{k: v for k, v in given.items() if k in wanted}, **options)


def one_each(mixer: str | Sequence[str], depth: int, what: str) -> tuple[str, ...]:
    """The mixer's name for each of `depth` layers, from one name or a name for each; errors call a layer `what`."""
    mixers = (mixer,) * depth if isinstance(mixer, str) else tuple(mixer)
    if len(mixers) != depth:
        raise RegardError(f"model: {len(mixers)} mixers for a depth of {depth}; name one, or one a {what}")
    return mixers


def mixer_options(name: str) -> dict[str, Any]:
    """The options of a mixer and their defaults: the arguments of its constructor that the model does not set."""
    parameters = inspect.signature(MIXERS[name]).parameters.values()
    given_by_model = {"embed_dim", "num_heads", "num_tokens", "num_prefix"}
    return {p.name: p.default for p in parameters if p.name not in given_by_model}


def options_for(name: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options for one mixer: its own table if `options` has a table for each mixer, otherwise all of `options`."""
    if not options.keys() & MIXERS.keys():
        return options
    for key in options:
        if key not in MIXERS:
            raise unknown("mixer", key, MIXERS, where="mixer_options")
        if not isinstance(options[key], Mapping):
            raise RegardError(f"mixer_options.{key}: should be a table of options, got {options[key]!r}")
    return options.get(name, {})


def _check_type(name: str, key: str, value: object) -> None:
    annotation = inspect.signature(MIXERS[name]).parameters[key].annotation
    try:
        TypeAdapter(annotation).validate_python(value, strict=True)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise RegardError(f"mixer {name}: {key}: {message[0].lower()}{message[1:]}, got {value!r}") from None
