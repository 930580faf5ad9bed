"""Whether a file answers as its run does: parity, agreement, the task's figure, and the layer that differs."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from regard.errors import one_line
from regard.tasks import DetectionEvaluation, Evaluation, MultiLabelEvaluation

TOLERANCE = {"fp32": 1e-4, "bf16": 0.02, "int8": 1.0}
"""The largest difference of a probability, or of a score or box in [0, 1], that a precision may make. Of int8 the
figure alone is held to a limit; only numbers that are not finite are a fault."""
LEAST_POINTS = 0.5
Z = 1.959964  # of a two-sided interval of 95%


@dataclass
class Report:
    """What was measured of a file, as export.json holds it."""

    file: str
    precision: str
    tolerance: float
    max_drop: float
    parity: list[dict[str, Any]] = field(default_factory=list)
    """One entry a batch: its shape, and the largest difference of an output."""
    metric: str = ""
    before: float | None = None
    after: float | None = None
    interval: tuple[float, float] | None = None
    """95%, of after minus before, paired by image; None where the metric is no proportion of images."""
    images: int = 0
    agreement: float | None = None
    """The fraction of images with the same answer."""
    images_are: str = ""
    """"held-out", "training", "no", or the data address that was given."""
    first_deviating_layer: str | None = None
    faults: list[str] = field(default_factory=list)
    """Why the file is rejected; none where it is not."""
    warnings: list[str] = field(default_factory=list)
    engine: dict[str, str] = field(default_factory=dict)
    asked: str = ""
    """The precision that was asked for, where the file has another."""
    way: str | None = None
    """How an int8 file was quantised."""
    tried: list[dict[str, Any]] = field(default_factory=list)
    """What did not serve before: its way or precision, and why."""
    calibration: dict[str, Any] | None = None
    """The images that int8 was calibrated with: their number, and their names among the training images."""
    speed: dict[str, float] | None = None
    """How many times as fast the file is as one of another precision, here, in the same engine."""

    @property
    def passed(self) -> bool:
        return not self.faults

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}


def add_parity(
    report: Report,
    reference: Callable[[Tensor], Any],
    under_test: Callable[[Tensor], Any],
    batches: Sequence[Tensor],
    difference: Callable[[Any, Any], float],
    *,
    binding: bool = True,
) -> None:
    """Runs both on prepared images. `difference` is the largest one of two outputs.

    Beyond the tolerance it is a fault; if it is not `binding`, a warning, unless it is no finite number.
    """
    for images in batches:
        with torch.inference_mode():
            largest = difference(reference(images), under_test(images))
        report.parity.append({"shape": list(images.shape), "largest_difference": largest})
        if not largest <= report.tolerance:  # also where it is NaN
            said = report.faults if binding or not math.isfinite(largest) else report.warnings
            said.append(
                f"{len(images)} images of noise, {images.shape[2]} × {images.shape[3]}: an answer differs by "
                f"{largest:.2g}, and {report.precision} may differ by {report.tolerance:g}"
            )


def of_classes(multi_label: bool) -> Callable[[Tensor, Tensor], float]:
    """The largest difference of a probability."""

    def difference(wanted: Tensor, found: Tensor) -> float:
        if found.shape != wanted.shape:
            return math.inf
        one, other = (logits.sigmoid() if multi_label else logits.softmax(-1) for logits in (wanted, found))
        return float((one - other).abs().max())

    return difference


def of_queries(scores: Callable[[Tensor], Tensor]) -> Callable[[Any, Any], float]:
    """The largest difference of a score or a box in [0, 1], each query beside the one most like it.

    Queries of nearly equal scores may change places, and the least certain of them may be chosen in one and not in the
    other: what counts are those of a score of 0.05, and the ten most certain.
    """

    def difference(wanted: Any, found: Any) -> float:
        if wanted.logits[-1].shape != found.logits[-1].shape:
            return math.inf
        worst = 0.0
        parts = [(scores(one.logits[-1].float()), one.boxes_cxcywh[-1].float()) for one in (wanted, found)]
        for (score, box), (other_score, other_box) in zip(*(zip(*part, strict=True) for part in parts), strict=True):
            own, others = torch.cat([score, box], 1), torch.cat([other_score, other_box], 1)
            distances = torch.cdist(own, others, p=math.inf)
            for table, best in ((distances, score.amax(1)), (distances.T, other_score.amax(1))):
                most = max(int((best >= 0.05).sum()), min(10, len(best)))
                least = table.amin(1)[best.topk(most).indices]
                worst = max(worst, float(least.max())) if bool(least.isfinite().all()) else math.inf
        return worst

    return difference


def add_figures(report: Report, before: Evaluation | DetectionEvaluation, after: Any) -> None:
    """The task's figure of the run and of the file on the same images; a larger drop than `max_drop` is a fault."""
    report.metric = metric_of(before)
    if isinstance(before, DetectionEvaluation):
        report.images = len(before)
        drop = _compared(report, before.metrics(), after.metrics())
        same = [_same_objects(a, b) for a, b in zip(before.found, after.found, strict=True)]
        report.agreement = float(np.mean(same)) if same else None
    else:
        report.images = len(before.names)
        drop = _compared(report, before.metrics(), after.metrics())
        same = before.predicted == after.predicted
        same = same.all(1) if same.ndim == 2 else same
        report.agreement = float(same.double().mean())
        right = [_right(one) for one in (before, after)]
        lost, won = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
        report.interval = paired_interval(won, lost, report.images)
        _certify(report, won, lost)
    if not drop * 100 <= report.max_drop:
        report.faults.append(
            f"{report.metric} falls by {drop * 100:.2f} points, from {_percent(report.before)} to "
            f"{_percent(report.after)}; --max-drop allows {report.max_drop:g}"
        )


def metric_of(evaluation: Evaluation | DetectionEvaluation) -> str:
    """The figure that counts for a task: AP, of several labels F1, else accuracy."""
    if isinstance(evaluation, DetectionEvaluation):
        return "ap"
    return "f1" if isinstance(evaluation, MultiLabelEvaluation) else "accuracy"


def paired_interval(won: int, lost: int, images: int) -> tuple[float, float]:
    """95% of the difference of two proportions of the same images, of which `won` became right and `lost` wrong.

    Agresti and Min 2005: ½ is added to each of the two counts, so that the interval is of some width without any.
    Where all answers are the same it is (0, 0): there is nothing to estimate.
    """
    if not won and not lost:
        return 0.0, 0.0
    more, less, n = won + 0.5, lost + 0.5, images + 2
    centre = (more - less) / n
    half = Z * math.sqrt(max(more + less - (more - less) ** 2 / n, 0)) / n
    return max(centre - half, -1.0), min(centre + half, 1.0)


def _certify(report: Report, won: int, lost: int) -> None:
    """A warning where the images are too few to exclude a larger drop; it says how many would do."""
    assert report.interval is not None
    drop, allowed = -report.interval[0] * 100, report.max_drop
    if report.agreement == 1 or drop <= allowed or (lost - won) / max(report.images, 1) * 100 > allowed:
        return
    rate, mean = (won + lost) / report.images, (lost - won) / report.images
    spare = allowed / 100 - mean
    needed = math.ceil(Z**2 * max(rate - mean**2, 1 / report.images) / spare**2) if spare > 0 else None
    enough = f"about {needed:,} images would" if needed else "no number of images would"
    report.warnings.append(
        f"{report.images:,} images cannot exclude a drop of more than {allowed:g} points (the interval reaches "
        f"{drop:.2f}); {enough}"
    )


def _compared(report: Report, before: Mapping[str, float], after: Mapping[str, float]) -> float:
    report.before, report.after = before[report.metric], after[report.metric]
    return report.before - report.after


def _right(evaluation: Evaluation) -> Tensor:
    right = evaluation.predicted == evaluation.labels
    return right.all(1) if right.ndim == 2 else right


def _same_objects(one: Any, other: Any) -> bool:
    """Whether two answers have as many objects of a score of ½, of the same classes, each at an IoU of 0.9 or more."""
    from regard.losses import iou

    first, second = one.above(0.5), other.above(0.5)
    if len(first) != len(second):
        return False
    if not len(first):
        return True
    near = (iou(first.boxes_xyxy[:, None], second.boxes_xyxy[None]) >= 0.9) & (first.labels[:, None] == second.labels)
    return bool(near.any(1).all() and near.any(0).all())


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:.2f}%"


def first_deviating_layer(
    program: ExportedProgram, model: Any, pixels: np.ndarray, tolerance: float, outputs: Sequence[str] = ()
) -> str | None:
    """The first module of the run's model whose output the ONNX file gives otherwise; None where that cannot be told.

    Values of the file have the names of the program's, but for its `outputs`: both are computed once, and compared in
    the order of the graph.
    """
    import onnx
    import onnxruntime

    ours = dict(_values(program, torch.from_numpy(pixels)))
    ours |= {
        name: ours[str(own)]
        for own, name in zip(program.graph_signature.user_outputs, outputs, strict=False)
        if str(own) in ours
    }
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    names = [name for node in probed.graph.node for name in node.output if name in ours]
    known = {value.name for value in probed.graph.output}
    probed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(probed.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found = session.run(names, {session.get_inputs()[0].name: pixels})
    except Exception as error:
        return f"unknown ({one_line(error, 120)})"
    for name, value in zip(names, found, strict=True):
        wanted, layer = ours[name]
        if wanted.shape != value.shape or wanted.dtype.kind != "f":
            continue
        scale = max(float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0)), 1.0)
        with np.errstate(invalid="ignore"):  # scores of what is masked are -inf in both
            gap = np.where(wanted == value, 0, np.abs(wanted - value))
        if not float(gap.max(initial=0)) <= tolerance * scale:
            return layer or name
    return None


def _values(program: ExportedProgram, pixels: Tensor) -> list[tuple[str, tuple[np.ndarray, str]]]:
    """Each value of the program: its name, the numbers, and the module that it comes from."""
    found: list[tuple[str, tuple[np.ndarray, str]]] = []

    class Recorder(torch.fx.Interpreter):
        def run_node(self, node: torch.fx.Node) -> Any:
            value = super().run_node(node)
            if isinstance(value, Tensor) and node.op == "call_function":
                found.append((node.name, (value.detach().numpy(), _layer_of(node))))
            return value

    with torch.no_grad():
        Recorder(program.module()).run(pixels)
    return found


def _layer_of(node: torch.fx.Node) -> str:
    """The innermost module: "model.blocks.1.mlp.fc1" without the name of ours around it."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(entry[0]) for entry in stack.values()]
    path = paths[-1] if paths else ""
    path = path.replace("L['self'].", "").replace("['", ".").replace("']", "").removeprefix("model.")
    return path.replace("._modules.", ".").strip(".")
