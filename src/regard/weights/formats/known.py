"""The formats that weights come in: which tables belong to each, and which format a state dict has."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from regard.errors import RegardError, first_few, unknown
from regard.weights.formats.google import GOOGLE_MIXER, google_vit
from regard.weights.formats.original_detr import ORIGINAL_DETR
from regard.weights.formats.timm import TIMM_DISTILLED, TIMM_MIXER, TIMM_VIT
from regard.weights.formats.torch_transformer import TORCH_TRANSFORMER
from regard.weights.formats.torchvision_vit import TORCHVISION_VIT
from regard.weights.formats.transformers_detr import TRANSFORMERS_DETR
from regard.weights.formats.transformers_fnet import TRANSFORMERS_FNET
from regard.weights.formats.transformers_vit import (
    TRANSFORMERS_DEIT,
    TRANSFORMERS_DINOV2,
    TRANSFORMERS_DINOV2_REGISTERS,
    TRANSFORMERS_DISTILLED,
    TRANSFORMERS_VIT,
)
from regard.weights.rules import Names, State

REGARD = "regard"

# Each format's kinds of model. Weights are written in the first kind that has a place for every tensor.
FORMATS: dict[str, tuple[Names, ...]] = {
    REGARD: (),
    "timm": (TIMM_VIT, TIMM_DISTILLED, TIMM_MIXER),
    "transformers": (
        TRANSFORMERS_VIT,
        TRANSFORMERS_DEIT,
        TRANSFORMERS_DISTILLED,
        TRANSFORMERS_DINOV2,
        TRANSFORMERS_DINOV2_REGISTERS,
        TRANSFORMERS_DETR,
        TRANSFORMERS_FNET,
    ),
    "torchvision": (TORCHVISION_VIT,),
    "detr": (ORIGINAL_DETR,),
    "google": (google_vit(num_heads=1), GOOGLE_MIXER),
    "torch": (TORCH_TRANSFORMER,),
}


@dataclass(frozen=True)
class Understood:
    """A state dict under our names, and whose it was."""

    state: State
    format: str
    what: str
    unexpected: tuple[str, ...] = ()
    """Their names that have no place here."""


def understand(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    *,
    format: str | None = None,
    patches: int | None = None,
) -> Understood:
    """A state dict under our names. Unless given, `format` is the one that has a place for most of its names.

    `wanted` is the model's own state, `patches` its number of patches. RegardError for an unknown format.
    """
    if format is not None and format not in FORMATS:
        raise unknown("format", format, FORMATS)
    known = len(state.keys() & wanted.keys())
    ours = Understood(dict(state), REGARD, "Regard")
    if format == REGARD or (format is None and (known == len(state) > 0 or is_ours(state))):
        return ours
    found: list[tuple[int, Understood]] = [] if format else [(known, ours)]
    for name in (format,) if format else FORMATS:
        for names in FORMATS[name]:
            translated, unexpected = names.inward(state, patches)
            fitting = len(translated.keys() & wanted.keys())
            # Most of their names count first, then most of ours: a DINOv2 would pass for a ViT without registers.
            score = 2 * (len(state) - len(unexpected)) + (not unexpected) * fitting
            found.append((score, Understood(translated, name, names.what, tuple(unexpected))))
    return max(found, key=lambda one: one[0])[1]


def is_ours(state: Mapping[str, Tensor]) -> bool:
    """Whether it has names that only Regard's models have."""
    return any(".mixer." in name or name.startswith(("backbone.body.", "label_head.")) for name in state)


def written_as(state: Mapping[str, Tensor], format: str, *, num_heads: int | None = None) -> State:
    """Our state dict under another library's names. RegardError if that library has no such model.

    Only `google` needs `num_heads`: its files store each head apart.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if format == REGARD:
        return dict(state)
    kinds = FORMATS[format]
    if format == "google":
        if num_heads is None and any(".mixer.qkv." in name for name in state):
            raise RegardError("google: the file does not say how many heads it has; name a run or a pretrained model")
        kinds = (google_vit(num_heads or 1), GOOGLE_MIXER)
    least: tuple[list[str], str] | None = None
    for names in kinds:
        found, unexpected = names.outward(state)
        if not unexpected:
            return found
        if least is None or len(unexpected) < len(least[0]):
            least = unexpected, names.what
    assert least is not None
    raise RegardError(f"{format} has no such model: {least[1]} has no place for {first_few(least[0], 6)}")
