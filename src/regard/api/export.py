"""`regard.export_model`: a run as a file for another engine, verified on the images that the run held out."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from regard.api.held_out import data_options
from regard.api.names import find
from regard.api.runs import load, run_folder
from regard.errors import RegardError, shown
from regard.files import expanded, require_new_folder, whole_folder, write_json

if TYPE_CHECKING:
    from regard.export import Report
    from regard.export.program import Shape
    from regard.tasks import Classifier, DetectionEvaluation, Detector, Evaluation

REPORT = "export.json"
# Prepared images for parity, of the sizes that a free file is tried at.
BATCHES = (1, 5)


@dataclass(frozen=True)
class Exported:
    """A file that was written; `report` says what was measured of it."""

    file: Path
    report: "Report"

    @property
    def passed(self) -> bool:
        """Whether the file answers as the run does; otherwise its name ends with .rejected."""
        return self.report.passed


@dataclass(frozen=True)
class _Wanted:
    """What is to be written, and how it is verified."""

    run: str | Path
    predictor: "Classifier | Detector"
    shape: "Shape"
    to: str
    precision: str
    pixels: str
    max_drop: float
    data: str | None
    calibrate: int


def export_model(
    run: str | Path,
    to: str = "onnx",
    out: str | Path | None = None,
    *,
    precision: str = "fp32",
    size: str | int | None = None,
    batch: str | int = "dynamic",
    pixels: str = "auto",
    max_drop: float | int = 0.5,
    weights: str = "model",
    data: str | None = None,
    calibrate: int = 300,
) -> Exported:
    """Writes a run's model as a file of another engine, and verifies it on the images that the run held out.

    to: "onnx" (ONNX Runtime, TensorRT, ...), "openvino" (an .xml with a .bin beside it) or "pt2" (a program of
    PyTorch's, without what a detector reports). out: a new folder, which
    gets the file and export.json; or a file with the suffix of its kind, beside which NAME.export.json is written. Of a
    run's folder it is RUN/export-TO-PRECISION unless given.
    precision: "fp32", for openvino "bf16", "int8", or "auto". int8 tries NNCF's and ONNX Runtime's quantizers in turn
    until one passes, and, where none does, bf16 for openvino: the file is then called model.bf16.xml. "auto" is the
    fastest here of those that pass. calibrate: training images that int8 looks at, never held-out ones.
    size: pixels of the image, "HEIGHTxWIDTH", or "dynamic"; the run's unless
    given. batch: "dynamic" or a number. pixels: "uint8", with normalisation in the graph, or "float", for prepared
    images. max_drop: points of accuracy (of AP, of F1) that the file may lose. data: other images to verify it on.
    A file that loses more, or whose numbers differ by more than its precision explains, is renamed .rejected, and
    `Exported.passed` is False; export.json names the first layer that differs.
    RegardError for a run that reads no images, an unknown option, a size that the model cannot take, a package that is
    not installed, and a target that exists.
    """
    from regard.export import is_exported
    from regard.export.write import FILE_NAMES, batch_of, require_known, with_size
    from regard.tasks import Classifier, Detector

    if is_exported(run):
        raise RegardError(f"{run}: is exported already; export the run that it came from")
    require_known(to, precision, pixels)
    if isinstance(max_drop, bool) or not 0 <= max_drop <= 100:
        raise RegardError(f"--max-drop {shown(max_drop)}: must be points from 0 to 100")
    batch_size = batch_of(batch)
    if isinstance(calibrate, bool) or not isinstance(calibrate, int) or calibrate < 1:
        raise RegardError(f"--calibrate {shown(calibrate)}: must be a number of images")
    predictor = load(run, weights=weights, device="cpu")
    if not isinstance(predictor, Classifier | Detector):
        raise RegardError(f"{run}: reads texts; runs that classify images or find objects can be exported")
    sized, shape = with_size(predictor, None if size is None else str(size))
    target, name = _target(run, to, precision, out)
    shape = replace(shape, batch=batch_size)
    wanted = _Wanted(run, sized, shape, to, precision, pixels, float(max_drop), data, calibrate)
    if name is not None:
        return _into_file(wanted, target / name)
    with whole_folder(target) as folder:
        exported = _written(wanted, folder / FILE_NAMES[to])
    return Exported(target / exported.file.name, exported.report)


def _target(run: str | Path, to: str, precision: str, out: str | Path | None) -> tuple[Path, str | None]:
    """The folder, and the file's name in it where one was given. RegardError where there is something already."""
    from regard.export.write import FILE_NAMES

    suffix = Path(FILE_NAMES[to]).suffix
    if out is None:
        parent = run_folder(run) if find(run).folder is not None else Path()
        prefix = "" if find(run).folder is not None else f"{find(run).name}-"
        path = parent / f"{prefix}export-{to}-{precision}"
    else:
        path = expanded(out)
    if path.suffix.lower() != suffix:
        if path.suffix.lower() in (".onnx", ".xml", ".pt2"):
            raise RegardError(f"{path}: --to {to} writes files that end with {suffix}")
        require_new_folder(path)
        return path, None
    for file in (path, path.with_suffix(".bin") if suffix == ".xml" else path):
        if os.path.lexists(file):
            raise RegardError(f"{file}: exists already; choose another name")
    if not path.parent.is_dir():
        raise RegardError(f"{path.parent}: is no folder; make it, or choose another")
    return path.parent, path.name


def _into_file(wanted: _Wanted, file: Path) -> Exported:
    """By way of a folder beside the file, so that nothing half-written stays."""
    from tempfile import TemporaryDirectory

    try:
        with TemporaryDirectory(dir=file.parent, prefix=".export-") as beside:
            made = _written(wanted, Path(beside) / file.name)
            for part in sorted(Path(beside).iterdir()):
                name = f"{file.stem}.{REPORT}" if part.name == REPORT else part.name
                part.replace(file.parent / name)
    except OSError as error:
        raise RegardError(f"{file}: could not be written: {error.strerror or error}") from error
    return Exported(file.with_name(made.file.name), made.report)


def _written(wanted: _Wanted, file: Path) -> Exported:
    """The file, and its report beside it; a file that is rejected is renamed."""
    from regard.export.verify import TOLERANCE, Report
    from regard.export.write import make, write

    if wanted.precision in ("int8", "auto"):
        from regard.api.export_int8 import written

        return written(wanted, file, _recipe_of(wanted.run))
    made = make(
        wanted.predictor,
        wanted.shape,
        pixels=wanted.pixels,
        precision=wanted.precision,
        recipe=_recipe_of(wanted.run),
        to=wanted.to,
    )
    write(made, file, wanted.to)
    report = Report(file.name, wanted.precision, TOLERANCE[wanted.precision], wanted.max_drop)
    verify(file, wanted.predictor, report, run=wanted.run, data=wanted.data, made=made)
    if not report.passed:
        report.file += ".rejected"
        file = file.rename(file.with_name(report.file))
    write_json(file.with_name(REPORT), report.to_dict())
    return Exported(file, report)


def _recipe_of(run: str | Path) -> str | None:
    from regard.reading import read_text

    folder = find(run).folder
    recipe = None if folder is None else folder / "recipe.toml"
    return read_text(recipe) if recipe is not None and recipe.is_file() else None


def verify(
    file: Path,
    predictor: "Classifier | Detector",
    report: "Report",
    *,
    run: str | Path,
    data: str | None = None,
    made: Any = None,
    known: dict[str, Any] | None = None,
) -> None:
    """Opens the file in its engine, and puts into the report how its answers compare with the predictor's.

    On the images that the run held out; on its training images where it held out none, which is said; on random pixels
    alone where it has no data. known: what the run's own answers were, filled by the first call and read by others.
    """
    from regard.export import installed
    from regard.export.verify import first_deviating_layer

    exported = _opened(file, made)
    packages = ("torch", "onnx", "onnxruntime", "onnxscript", "openvino", "nncf")
    report.engine = {name: found for name in packages if (found := installed(name)) is not None}
    known = {} if known is None else known
    if not known:
        known["before"] = evaluation_of(predictor, run, data, report)
        known["said"] = report.images_are, list(report.warnings)
    before = known["before"]
    report.images_are, report.warnings = known["said"][0], list(known["said"][1])
    shape = made.program.shape if made is not None else None
    verify_answers(exported, predictor, report, before, run=run, data=data, shape=shape)
    if report.faults and made is not None and made.named is not None and file.suffix == ".onnx":
        from regard.export.onnx_file import read_onnx

        model: Any = exported.model
        pixels = model.pixels(_batches(predictor, shape)[0])
        named, outputs = read_onnx(file)[0], made.program.output_names
        report.first_deviating_layer = first_deviating_layer(made.named, named, pixels, 1e-3, outputs)


def verify_answers(
    under_test: "Classifier | Detector",
    predictor: "Classifier | Detector",
    report: "Report",
    before: Any,
    *,
    run: str | Path,
    data: str | None = None,
    shape: "Shape | None" = None,
) -> None:
    """Puts into the report how the answers of one predictor compare with those of the run's.

    On random pixels, and on the images of `before`, the run's own evaluation, where there is one. Then the figure
    decides about fewer bits: in noise a detector in bf16 may choose other queries.
    """
    from regard.export.verify import add_figures, add_parity

    binding = report.precision == "fp32" or before is None
    batches, difference = _batches(predictor, shape), _difference(predictor)
    add_parity(report, predictor.model, under_test.model, batches, difference, binding=binding)
    if before is not None:
        with quiet():
            from regard.api.evaluation import evaluated

            add_figures(report, before, evaluated(under_test, run, data))


def _opened(file: Path, made: Any) -> "Classifier | Detector":
    """The file as a predictor; a .pt2 because this process has written it."""
    from regard.export import load_exported
    from regard.export.engines import Opened
    from regard.export.predictor import predictor_of
    from regard.export.pt2_file import Pt2Engine

    if file.suffix == ".pt2" and made is not None:
        return predictor_of(Opened(Pt2Engine(file, made.program), made.contract), str(file))
    return load_exported(file)


@contextmanager
def quiet() -> Iterator[None]:
    """Within, nothing is said of data: it was said before."""
    log = logging.getLogger("regard")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def evaluation_of(
    predictor: "Classifier | Detector", run: str | Path, data: str | None, report: "Report"
) -> "Evaluation | DetectionEvaluation | None":
    """The run's own answers, on the images that it held out; None where there are no images, which is a warning."""
    from regard.api.evaluation import evaluated
    from regard.export import is_exported

    found: Any = None
    alone = "compared on random pixels alone; --data ADDRESS names images to verify it on"
    folder = None if is_exported(run) else find(run).folder
    has_own = is_exported(run) or (folder is not None and (folder / "recipe.toml").is_file())
    if data is None and not has_own:
        report.images_are = "no"
        report.warnings.append(f"it has no data of its own: {alone}")
        return None
    try:
        found = evaluated(predictor, run, data)
    except RegardError as error:
        if data is not None:
            raise
        report.images_are = "no"
        report.warnings.append(f"its data cannot be opened ({error}): {alone}")
        return None
    report.images_are = data or "held-out"
    if data is None and getattr(data_options(run, None), "validate_on", "val") == "train":
        report.images_are = "training"
        report.warnings.append("the run held out no images: verified on those that it was trained on")
    return found


def _batches(predictor: "Classifier | Detector", shape: "Shape | None") -> list[Tensor]:
    """Random pixels, prepared: two batch sizes, and of a free file two sizes that are not square."""
    from regard.export.random_images import random_images

    pre: Any = predictor.preprocessing
    fixed = getattr(pre, "img_size", None)
    unit = 1 if shape is None else shape.multiple
    sizes: list[tuple[int, int]]
    if shape is not None and shape.height is not None and shape.width is not None:
        sizes = [(shape.height, shape.width)] * 2
    elif fixed is not None:
        sizes = [(fixed[0], fixed[1]), (fixed[0] + unit, fixed[1] + 2 * unit)]
    else:
        short = max(round(pre.shortest / unit), 2) * unit
        sizes = [(short, short + unit), (short + 2 * unit, short)]
    counts = BATCHES if shape is None or shape.batch is None else (shape.batch, 1)
    return [random_images(predictor, count, size) for count, size in zip(counts, sizes, strict=True)]


def _difference(predictor: "Classifier | Detector") -> Callable[[Any, Any], float]:
    from regard.export.verify import of_classes, of_queries
    from regard.tasks import Classifier

    return of_classes(predictor.multi_label) if isinstance(predictor, Classifier) else of_queries(predictor._scores)
