"""The methods of `explain`, what each says and costs, and the names that they had before."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from regard.errors import RegardError, unknown

Method = Literal[
    "rows",
    "influence",
    "rollout",
    "relevance",
    "gradient",
    "gradient-x-input",
    "grad-cam",
    "occlusion",
    "integrated-gradients",
    "window",
    "embeddings",
    "points",
    "queries",
]
NAMES = get_args(Method)


@dataclass(frozen=True)
class About:
    """What a method shows, whose models it serves, and its cost for one image."""

    says: str
    serves: str
    cost: str
    of_class: bool = True
    """Whether it depends on the class that is asked about."""
    signed: bool = False
    is_share: bool = False
    """Whether its values are fractions of what the query takes."""


_MATRIX = "ViTs whose mixers have a mixing matrix: attention, local, performer, none; timm's ViTs"
_VITS = "ViTs with any mixer that learns by gradients, timm's ViTs, SASA-ResNets"
_BACKWARD = "1 forward and 1 backward pass; memory for what the backward pass reads"
_ANY = "every classifier and model of features"

METHODS: Mapping[str, About] = MappingProxyType(
    {
        "rows": About(
            "what one token takes from each other in one layer",
            "every mixer and model family of the package, timm's ViTs",
            "1 forward pass for all layers; memory for the rows alone",
            of_class=False,
            is_share=True,
        ),
        "influence": About(
            "how much one output token of a layer depends on each input token: the norm of ∂y_i/∂x_j",
            "every mixer of a ViT",
            "1 forward pass; where no formula gives it, embed_dim backward passes of the layer, or 64 with an error",
            of_class=False,
        ),
        "rollout": About(
            "what reaches the head through all layers of attention (Abnar and Zuidema 2020)",
            _MATRIX,
            "1 forward pass, and one more of each layer's attention; memory for one layer's input each",
            of_class=False,
            is_share=True,
        ),
        "relevance": About(
            "what reaches the head through attention that speaks for the class (Chefer et al. 2021)",
            f"{_MATRIX}; boxes of detectors with dense cross-attention",
            f"{_BACKWARD}, and two more of each layer's attention",
        ),
        "gradient": About("how strongly each pixel changes the score (Simonyan et al. 2013)", _ANY, _BACKWARD),
        "gradient-x-input": About(
            "each pixel's gradient times its distance from the mean colour",
            _ANY,
            _BACKWARD,
            signed=True,
        ),
        "grad-cam": About(
            "channels of the last grid of features, weighted by their gradient (Selvaraju et al. 2017)",
            _VITS,
            _BACKWARD,
        ),
        "occlusion": About(
            "what the score loses when a patch gets the mean colour (Zeiler and Fergus 2014)",
            _ANY,
            "a forward pass for each patch, 257 at most; memory for a batch of them",
            signed=True,
        ),
        "integrated-gradients": About(
            "gradients summed up on the way from the mean colour to the image (Sundararajan et al. 2017)",
            f"{_ANY}; needs captum",
            "32 forward and backward passes; memory for what a batch of them keeps",
            signed=True,
        ),
        "window": About(
            "what one pixel takes from its window of local attention",
            "ViTs with local mixers, SASA-ResNets",
            "1 forward pass",
            of_class=False,
        ),
        "embeddings": About(
            "what relative embeddings add to the logits of local attention",
            "ViTs with local mixers, SASA-ResNets",
            "1 forward pass",
            of_class=False,
        ),
        "points": About(
            "where the query of a box samples the maps, and with which weights (Zhu et al. 2021)",
            "detectors with deformable attention",
            "3 forward passes",
            is_share=True,
        ),
        "queries": About(
            "where each query puts its boxes over a data set (Carion et al. 2020, figure 7)",
            "detectors with learned queries: DETR, DN-DETR without two stages",
            "1 forward pass for each image",
            of_class=False,
        ),
    }
)
# What `--kind` called them.
BEFORE = {"matrix": "rows"}


def method_named(name: str | None) -> str | None:
    """A method by its name, with hyphens or underscores. RegardError offers the nearest, or an old name's new one."""
    if name is None:
        return None
    known = str(name).replace("_", "-")
    if known in BEFORE:
        raise RegardError(f"method {name!r}: it is called {BEFORE[known]!r} now")
    if known not in METHODS:
        raise unknown("method", name, NAMES, where="explain")
    return known


def table() -> str:
    """The methods as Markdown, for the documentation."""
    head = "| method | what it shows | which models | what it costs |\n| --- | --- | --- | --- |\n"
    return head + "".join(f"| `{name}` | {one.says} | {one.serves} | {one.cost} |\n" for name, one in METHODS.items())
