"""What `regard.benchmark` times: a run in each engine and precision, with verified files; and files that are there."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.api.engine_files import ENGINES, OF_FILES, installed_engines, program, require_engine, verified_file
from regard.api.export import quiet
from regard.api.runs import load
from regard.errors import RegardError, unknown

if TYPE_CHECKING:
    from regard.export.decide import Ratio
    from regard.tasks import Classifier, Detector


@dataclass
class Contender:
    """An engine in a precision, or a file, and what was measured of it; times by the size of the batch."""

    name: str
    engine: str
    """"torch", "optimize", "onnx" or "openvino"."""
    precision: str
    source: str
    file: str | None = None
    milliseconds: dict[int, float] = field(default_factory=dict)
    """Of an image: the median over the turns."""
    times_as_fast: "dict[int, Ratio]" = field(default_factory=dict)
    """As the first contender: the median over the turns, with an interval of 95%."""
    first_answer_seconds: float = math.nan
    """From the start of its process."""
    memory_mb: float = math.nan
    """The most that its process has held."""
    metric: str = ""
    score: float | None = None
    """On the images that the run held out; None where there are none."""
    fault: str | None = None
    """Why it was not timed: it does not answer as the run does, or cannot."""


class Plan:
    """The contenders, with files in a folder for those that need one."""

    def __init__(
        self,
        folder: Path,
        precisions: Sequence[str] | None,
        engines: Sequence[str] | None,
        weights: str,
        data: str | None,
        accuracy: bool,
        several: bool,
        progress: Callable[[str], object],
    ) -> None:
        self.folder, self.weights, self.data, self.accuracy = folder, weights, data, accuracy
        self.several, self.progress = several, progress
        self.wanted = engines_wanted(engines, precisions)
        self.contenders: list[Contender] = []
        self.warnings: list[str] = []
        self.images_are = "no"
        self.first: tuple[Any, str] | None = None

    def add(self, source: str) -> None:
        from regard.export import is_exported
        from regard.tasks import Classifier, Detector

        predictor = load(source, weights=self.weights, device="cpu")
        if not isinstance(predictor, Classifier | Detector):
            raise RegardError(f"{source}: reads texts; runs that classify images or find objects can be timed")
        self.first = self.first or (predictor, source)
        if is_exported(source):
            self._add_file(source, predictor)
        else:
            self._add_run(source, predictor)

    def image_files(self, count: int) -> list[str]:
        """Images as files: some of those that the first source was trained on, or random ones where it has no data."""
        from regard.api.benchmark_images import image_files

        assert self.first is not None
        return image_files(*self.first, self.data, count, self.folder)

    def _add_file(self, source: str, predictor: "Classifier | Detector") -> None:
        from regard.export import open_file
        from regard.export.engines import SUFFIXES

        contract = open_file(Path(source)).contract
        own = Contender(
            self._name(source), SUFFIXES[Path(source).suffix.lower()], contract["precision"], source, source
        )
        self._score(own, predictor, self._evaluated(predictor, source))
        self.contenders.append(own)

    def _add_run(self, source: str, predictor: "Classifier | Detector") -> None:
        from regard.export.optimize import optimize

        before = self._evaluated(predictor, source)
        known, made = {"before": before, "said": ("", [])}, None
        for engine, precision in self.wanted:
            name = f"{engine} {precision}"
            own = Contender(self._name(f"{source} {name}" if self.several else name), engine, precision, source)
            self.contenders.append(own)
            self.progress(f"{own.name}: is made and verified")
            try:
                if engine in OF_FILES:
                    made = made or program(predictor)
                    file = self.folder / f"{len(self.contenders)}.{'onnx' if engine == 'onnx' else 'xml'}"
                    exported = verified_file(
                        predictor, made, file, engine, precision, run=source, data=self.data, known=known
                    )
                    own.file, own.metric, own.score = str(file), exported.report.metric, exported.report.after
                    own.fault = None if exported.passed else exported.report.faults[0]
                elif engine == "optimize":
                    faster = optimize(predictor, precision)
                    with quiet():
                        self._score(own, faster, None if before is None else self._evaluated(faster, source))
                else:
                    self._score(own, predictor, before)
            except RegardError as error:
                own.fault = str(error)

    def _name(self, name: str) -> str:
        names = {one.name for one in self.contenders}
        number = next(n for n in range(1, len(names) + 2) if (f"{name} ({n})" if n > 1 else name) not in names)
        return f"{name} ({number})" if number > 1 else name

    def _evaluated(self, predictor: "Classifier | Detector", source: str) -> Any:
        """The evaluation on what was held out; None where there are no data, which is a warning."""
        from regard.api.export import evaluation_of
        from regard.export import Report

        if not self.accuracy:
            return None
        self.progress(f"{source}: is measured on the images that it held out")
        report = Report("", "", 0.0, 0.0)
        found = evaluation_of(predictor, source, self.data, report)
        self.images_are = self.images_are if found is None else report.images_are
        new = [text for text in report.warnings if text not in self.warnings and found is not None]
        self.warnings += new or (
            [f"{source}: has no data here, so that no accuracy is measured"] if found is None else []
        )
        return found

    @staticmethod
    def _score(own: Contender, predictor: Any, evaluation: Any) -> None:
        from regard.export.verify import metric_of

        if evaluation is not None:
            own.metric = metric_of(evaluation)
            own.score = evaluation.metrics()[own.metric]


def engines_wanted(engines: Sequence[str] | None, precisions: Sequence[str] | None) -> list[tuple[str, str]]:
    """(engine, precision): all that are here, or what was asked for. RegardError for what cannot be."""
    import torch

    from regard.ops.precision import has_bf16

    for precision in precisions or ():
        if precision not in ("fp32", "bf16"):
            raise unknown("precision", precision, ("fp32", "bf16"), where="--precision")
    asked = precisions or (("fp32", "bf16") if has_bf16(torch.device("cpu")) else ("fp32",))
    chosen = installed_engines() if engines is None else list(dict.fromkeys(engines))
    found = []
    for engine in chosen:
        own = [precision for precision in dict.fromkeys(asked) if precision in ENGINES.get(engine, ())]
        for precision in own or (asked[:1] if engines is not None else ()):
            require_engine(engine, precision, "--engines")
            found.append((engine, precision))
    return found
