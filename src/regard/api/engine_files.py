"""A predictor as a verified file of an engine: temporary ones of a benchmark, and those that `--engine` keeps."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.api.export import Exported, verify

if TYPE_CHECKING:
    from regard.export.write import Made
    from regard.tasks import Classifier, Detector

ENGINES: dict[str, tuple[str, ...]] = {
    "torch": ("fp32",),
    "optimize": ("fp32", "bf16"),
    "onnx": ("fp32",),
    "openvino": ("fp32", "bf16"),
}
"""What answers -> the precisions that it has."""
OF_FILES = ("onnx", "openvino")
MAX_DROP = 0.5
"""Points of accuracy (of AP, of F1) that a file may lose."""
PARITY_ALONE: dict[str, Any] = {"before": None, "said": ("no", [])}
"""`known`, where a file is verified by its numbers alone, without the run's data."""


def program(predictor: "Classifier | Detector", pixels: str = "auto") -> "Made":
    """What the files of a predictor in all precisions are written from; made once, since capturing takes the time."""
    from regard.export.write import make, with_size

    return make(*with_size(predictor, None), pixels=pixels)


def verified_file(
    predictor: "Classifier | Detector",
    made: "Made",
    file: Path,
    to: str,
    precision: str,
    *,
    run: str | Path,
    data: str | None = None,
    known: dict[str, Any],
) -> Exported:
    """Writes a file and verifies it as `export_model` does. known: what the run's own answers were; see `verify`."""
    from regard.export.verify import TOLERANCE, Report
    from regard.export.write import write

    made = replace(made, contract={**made.contract, "precision": precision})
    write(made, file, to)
    report = Report(file.name, precision, TOLERANCE[precision], MAX_DROP)
    verify(file, predictor, report, run=run, data=data, made=made, known=known)
    return Exported(file, report)


def require_engine(engine: str, precision: str, where: str) -> None:
    """RegardError for an unknown engine or precision, one that is not installed, or bf16 that this machine lacks."""
    import torch

    from regard.errors import RegardError, unknown
    from regard.export.write import require_known
    from regard.ops.precision import has_bf16

    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES, where=where)
    if precision not in {one for own in ENGINES.values() for one in own}:
        raise unknown("precision", precision, ("fp32", "bf16"), where="--precision")
    if precision not in ENGINES[engine]:
        raise RegardError(f"--precision {precision}: {engine} has {' and '.join(ENGINES[engine])}")
    if precision == "bf16" and not has_bf16(torch.device("cpu")):
        raise RegardError("--precision bf16: this processor has no instructions for it; take fp32")
    if engine in OF_FILES:
        require_known(engine, precision, "auto")


def installed_engines() -> list[str]:
    """The engines that are here."""
    from regard.errors import RegardError

    found = []
    for engine in ENGINES:
        try:
            require_engine(engine, "fp32", "")
        except RegardError:
            continue
        found.append(engine)
    return found
