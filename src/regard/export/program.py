"""A predictor's model as one strict program of plain operations: pixels in, answers out.

`torch.export` refuses what depends on a size that is to stay free; there is no other way to capture that would write a
file of fixed batch instead.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from regard.data import DetectionPreprocessing, Preprocessing
from regard.data.images.transforms import Normalise
from regard.errors import RegardError, one_line
from regard.export.contract import IMAGES, LOGITS, MOST_IN_A_BATCH, PIXELS, PROBABILITIES, QUERY_BOXES, QUERY_LOGITS
from regard.export.extras import silent
from regard.layers import LearnedPositions, PatchEmbed, fused
from regard.ops.position import resampled
from regard.tasks import Classifier, Detector

LARGEST_SIDE = 8192  # pixels


@dataclass(frozen=True)
class Shape:
    """What an input may be. A side or a batch that is None stays free."""

    height: int | None
    width: int | None
    batch: int | None = None
    multiple: int = 1
    """A free side is a multiple of this many pixels."""

    def __str__(self) -> str:
        return "dynamic" if self.height is None else f"{self.height}x{self.width}"


@dataclass(frozen=True)
class Program:
    """An exported program, with the names of its input and outputs."""

    exported: ExportedProgram
    input_name: str
    output_names: tuple[str, ...]
    shape: Shape


class Entry(nn.Module):
    """uint8 (batch, height, width, channels) -> the model's normalised images; or those themselves."""

    def __init__(self, preprocessing: Preprocessing | DetectionPreprocessing, kind: str) -> None:
        super().__init__()
        self.kind = kind
        normalise = Normalise(preprocessing.mean, preprocessing.std)
        self.register_buffer("scale", normalise.scale)
        self.register_buffer("offset", normalise.offset)

    def forward(
        self, pixels: UInt8[Tensor, "batch height width channels"]
    ) -> Float[Tensor, "batch channels height width"]:
        if self.kind == "float":
            return pixels
        return pixels.permute(0, 3, 1, 2).float() * self.get_buffer("scale") + self.get_buffer("offset")


class ClassifierGraph(nn.Module):
    """Pixels -> probabilities and logits of the classes."""

    output_names = (PROBABILITIES, LOGITS)

    def __init__(self, classifier: Classifier, model: nn.Module, kind: str) -> None:
        super().__init__()
        self.entry, self.model = Entry(classifier.preprocessing, kind), model
        self.multi_label = classifier.multi_label

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model(self.entry(pixels)).float()
        return logits.sigmoid() if self.multi_label else logits.softmax(-1), logits


class DetectorGraph(nn.Module):
    """Pixels -> logits and boxes of all queries, by the decoder's last layer; what is reported comes later."""

    output_names = (QUERY_LOGITS, QUERY_BOXES)

    def __init__(self, detector: Detector, model: nn.Module, kind: str) -> None:
        super().__init__()
        self.entry, self.model = Entry(detector.preprocessing, kind), model

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model(self.entry(pixels))
        return output.logits[-1].float(), output.boxes_cxcywh[-1].float()


class FixedPositions(nn.Module):
    """Learned positions for one grid: a file of one size need not resample them, and engines differ in how they do."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table)

    def forward(self, grid: Any) -> Tensor:
        return self.get_buffer("table")


class FreePositions(nn.Module):
    """Learned positions, resampled for the grid of each input, whether it is that of the table or not."""

    def __init__(self, positions: LearnedPositions) -> None:
        super().__init__()
        self.grid, self.antialias = positions.grid, positions.antialias
        self.register_buffer("table", positions.table.detach().clone())

    def forward(self, grid: Any) -> Tensor:
        old, new = (self.grid.height, self.grid.width), (grid.height, grid.width)
        return resampled(self.get_buffer("table"), old, new, prefix=self.grid.prefix, antialias=self.antialias)


def size_multiple(model: nn.Module, divisor: int) -> int:
    """What a free side of an image has to be a multiple of: the patches of a model, or of a detector's backbone."""
    patches = [module.patch_size for module in model.modules() if isinstance(module, PatchEmbed)]
    return math.lcm(divisor, *patches)


def program_of(predictor: Classifier | Detector, shape: Shape, *, kind: str = "uint8") -> Program:
    """The predictor's program for inputs of a shape; it runs on the CPU. The predictor stays as it is.

    RegardError where the model cannot take the size, or depends on a size that was to stay free.
    """
    model = copy.deepcopy(predictor.model).cpu().eval().requires_grad_(False)
    graph: nn.Module
    if isinstance(predictor, Detector):
        graph = DetectorGraph(predictor, fused(model), kind)
    else:
        graph = ClassifierGraph(predictor, model, kind)
    channels = predictor.preprocessing.channels
    example = _example(shape, channels, kind)
    with torch.no_grad():
        _run_once(graph, example, shape)
        _without_branches(graph, example if shape.height is not None else None)
        dims = _free(shape, kind)
        try:
            with silent():
                exported = torch.export.export(
                    graph,
                    (example,),
                    dynamic_shapes=(dims,) if dims else None,
                    strict=True,
                    # What a pooling that rounds up asks of every side is true, and nothing that can be proved.
                    prefer_deferred_runtime_asserts_over_guards=True,
                )
        except RegardError:
            raise
        except Exception as error:  # dynamo raises dozens of classes
            raise RegardError(
                f"export: the model cannot be captured with free sizes ({shape}): {one_line(error)}"
            ) from error
    return Program(exported, PIXELS if kind == "uint8" else IMAGES, graph.output_names, shape)


def _example(shape: Shape, channels: int, kind: str) -> Tensor:
    """Three images (not one or two, which would be taken for constants) that are not square where sides are free."""
    unit = shape.multiple
    height, width = (shape.height or unit * _at_least(unit, 96)), (shape.width or unit * _at_least(unit, 160))
    batch = shape.batch or 3
    if kind == "uint8":
        return torch.randint(256, (batch, height, width, channels), dtype=torch.uint8)
    return torch.randn(batch, channels, height, width)


def _at_least(unit: int, side: int) -> int:
    return -(-side // unit)


def _free(shape: Shape, kind: str) -> dict[int, Any]:
    rows, columns = (1, 2) if kind == "uint8" else (2, 3)
    dims: dict[int, Any] = {}
    if shape.batch is None:
        dims[0] = Dim("batch", min=1, max=MOST_IN_A_BATCH)
    if shape.height is None:  # how small or large it may be, and a multiple of what, is what the model asks for
        dims[rows] = dims[columns] = Dim.DYNAMIC
    return dims


def _run_once(graph: nn.Module, example: Tensor, shape: Shape) -> None:
    """RegardError for a size that the model cannot take, in the model's own words."""
    try:
        graph(example)
    except RegardError as error:
        raise RegardError(f"export: size {shape}: {error}") from None
    except RuntimeError as error:
        raise RegardError(f"export: the model cannot take images of {shape}: {one_line(error)}") from None


def _without_branches(graph: nn.Module, example: Tensor | None) -> None:
    """Puts the positions of the example's grid in the place of each module that resamples them; without one, such as
    always do."""
    found: dict[str, nn.Module] = {
        name: FreePositions(module) for name, module in graph.named_modules() if isinstance(module, LearnedPositions)
    }
    if example is not None:
        hooks = [
            graph.get_submodule(name).register_forward_hook(
                lambda _module, _inputs, table, name=name: found.__setitem__(name, FixedPositions(table.clone()))
            )
            for name in found
        ]
        graph(example[:1])
        for hook in hooks:
            hook.remove()
    for name, positions in found.items():
        parent, _, own = name.rpartition(".")
        setattr(graph.get_submodule(parent), own, positions)
