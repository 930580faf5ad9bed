"""`regard.export_model(..., precision="int8" | "auto")`: the first way that passes, and the fastest that passes."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from regard.api.evaluation import training_images
from regard.api.export import REPORT, Exported, _Wanted, verify
from regard.data import BadImage
from regard.errors import RegardError
from regard.files import write_json

if TYPE_CHECKING:
    from regard.export.write import Made

BATCH = 8
"""Images that a file of a free batch is calibrated with at once."""


def written(wanted: _Wanted, file: Path, recipe: str | None) -> Exported:
    """The file in int8, or in what takes its place, with its report; others that were tried are removed."""
    from regard.export.write import make

    batch = wanted.shape.batch or BATCH
    if wanted.calibrate < batch:
        raise RegardError(f"--calibrate {wanted.calibrate}: must be at least a batch, {batch} images")
    made = make(wanted.predictor, wanted.shape, pixels=wanted.pixels, recipe=recipe, to=wanted.to)
    search = _Search(wanted, file, made)
    exported = search.int8() if wanted.precision == "int8" else search.fastest()
    for other in search.files:
        if other != exported.file:
            other.unlink(missing_ok=True)
            if other.suffix == ".xml":
                other.with_suffix(".bin").unlink(missing_ok=True)
    if not exported.passed:
        exported.report.file += ".rejected"
        exported = replace(exported, file=exported.file.rename(exported.file.with_name(exported.report.file)))
    write_json(file.with_name(REPORT), exported.report.to_dict())
    return exported


class _Search:
    """Files of one model in several precisions, beside each other until one is chosen."""

    def __init__(self, wanted: _Wanted, file: Path, made: "Made") -> None:
        self.wanted, self.file, self.made = wanted, file, made
        self.known: dict[str, Any] = {}
        self.files: list[Path] = []
        self.tried: list[dict[str, Any]] = []

    def int8(self) -> Exported:
        """The first way that passes; of none, bf16 for OpenVINO; else the last one, rejected."""
        exported = self.quantised()
        if exported is None or (not exported.passed and self.wanted.to == "openvino"):
            if self.wanted.to != "openvino":
                raise RegardError(f"--precision int8: no quantizer could be used: {self.tried[-1]['fault']}")
            exported = self.plain("bf16")
            if exported.passed:
                exported.report.warnings.append("int8 does not keep to --max-drop: the file is in bf16")
        elif exported.passed:
            self._tell_speed(exported)
        exported.report.asked, exported.report.tried = "int8", self.tried
        return exported

    def fastest(self) -> Exported:
        """Of those that pass, by interleaved turns; int8 only where it is 1.1 times as fast as the best other one."""
        from regard.export import installed
        from regard.export.quantize import BEATS
        from regard.ops.precision import has_bf16

        best = self.plain("fp32")
        if self.wanted.to == "openvino" and has_bf16(torch.device("cpu")):
            other = self.plain("bf16")
            if other.passed and (not best.passed or self._speed(other, best, 1.0)):
                best = other
            elif not other.passed:
                self.tried.append({"way": "bf16", "fault": other.report.faults[0]})
        if installed("nncf") is None:
            self.tried.append({"way": "int8", "fault": "nncf is not installed: pip install 'regard[int8]'"})
        else:
            other_or_none = self.quantised()
            if (
                other_or_none is not None
                and other_or_none.passed
                and (not best.passed or self._speed(other_or_none, best, BEATS))
            ):
                best = other_or_none
        best.report.asked, best.report.tried = "auto", self.tried
        return best

    def plain(self, precision: str) -> Exported:
        from regard.export.write import write

        made = replace(self.made, contract={**self.made.contract, "precision": precision})
        file = self._file(precision)
        write(made, file, self.wanted.to)
        return self._verified(file, made, precision)

    def quantised(self) -> Exported | None:
        """The first way that passes, or the last one; None where no quantizer could be used."""
        from regard.export.contract import text_of
        from regard.export.onnx_file import write_onnx
        from regard.export.openvino_file import to_openvino, write_openvino
        from regard.export.quantize import quantised, rungs

        batches, names = self._calibration()
        is_onnx, found, file = self.wanted.to == "onnx", None, self._file("int8")
        for way in rungs(self.wanted.to):
            contract = {**self.made.contract, "precision": "int8", "quantised_by": way}
            source = self.made.onnx if is_onnx else to_openvino(self.made.onnx, text_of(contract))
            try:
                model = quantised(source, way, batches, self._closeness())
                if is_onnx:
                    write_onnx(model, file, text_of(contract))
                else:
                    model.set_rt_info(text_of(contract), ["regard"])
                    write_openvino(model, file)
                found = self._verified(file, replace(self.made, named=None, contract=contract), "int8")
            except RegardError as error:  # of the quantizer, or of an engine that does not run what it made
                self.tried.append({"way": way, "fault": str(error)})
                if found is not None:  # its file was written over
                    found.report.faults.append(str(error))
                continue
            found.report.way = way
            found.report.calibration = {"images": len(names), "names": names}
            if found.passed:
                break
            self.tried.append({"way": way, "fault": found.report.faults[0], "after": found.report.after})
        return found

    def _file(self, precision: str) -> Path:
        asked = precision == self.wanted.precision
        file = self.file if asked else self.file.with_name(f"{self.file.stem}.{precision}{self.file.suffix}")
        self.files.append(file)
        return file

    def _verified(self, file: Path, made: "Made", precision: str) -> Exported:
        from regard.export.verify import TOLERANCE, Report

        wanted = self.wanted
        report: Report = Report(file.name, precision, TOLERANCE[precision], wanted.max_drop)
        verify(file, wanted.predictor, report, run=wanted.run, data=wanted.data, made=made, known=self.known)
        return Exported(file, report)

    def _calibration(self) -> tuple[list[np.ndarray], list[str]]:
        """Batches of prepared training images, and their names. RegardError for fewer than a batch."""
        from regard.export.engines import EngineModel
        from regard.tasks import Detector

        wanted, batch, predictor = self.wanted, self.wanted.shape.batch or BATCH, self.wanted.predictor
        source, places = training_images(predictor, wanted.run, wanted.data)
        order = np.random.default_rng(0).permutation(len(places))
        prepared, names = [], []
        for place in (places[index] for index in order):
            try:
                prepared.append(predictor._preprocess(source.read(place)))
            except BadImage:
                continue
            names.append(source.name(place))
            if len(names) == wanted.calibrate:
                break
        if len(names) < batch:
            raise RegardError(
                f"--precision int8: there are {len(names)} training images to calibrate with, fewer than a batch of "
                f"{batch}"
            )
        model = EngineModel(None, self.made.contract, predictor.preprocessing)
        step = wanted.shape.batch or (1 if isinstance(predictor, Detector) else BATCH)  # a detector's differ in size
        whole = len(names) // step * step
        batches = [model.pixels(torch.stack(prepared[at : at + step])) for at in range(0, whole, step)]
        return batches, names[:whole]

    def _closeness(self) -> Any:
        """1 minus the mean difference of the probabilities, or of a detector's scores in order, to the run's."""
        from regard.export.contract import PROBABILITIES, QUERY_LOGITS
        from regard.export.engines import OnnxEngine

        engine = OnnxEngine(self.made.onnx.SerializeToString(), "the run's graph")

        def answers(outputs: dict[str, np.ndarray]) -> np.ndarray:
            if PROBABILITIES in outputs:
                return outputs[PROBABILITIES]
            return np.sort(1 / (1 + np.exp(-outputs[QUERY_LOGITS])), axis=1)

        def closeness(model: Any, pixels: np.ndarray) -> float:
            if hasattr(model, "get_outputs"):  # of ONNX Runtime
                entry = model.get_inputs()[0].name
                names = [one.name for one in model.get_outputs()]
                found = dict(zip(names, model.run(None, {entry: pixels}), strict=True))
            else:
                values = model([pixels])
                found = {name: np.array(values[one]) for one in model.outputs for name in one.names}
            return 1 - float(np.abs(answers(found) - answers(engine.run(pixels))).mean())

        return closeness

    def _speed(self, first: Exported, second: Exported, least: float) -> bool:
        """Whether the first is at least so many times as fast; both reports say how many times."""
        from regard.export import load_exported
        from regard.export.quantize import speed_ratio

        one, other = (load_exported(exported.file).model for exported in (first, second))
        ratio = speed_ratio(one.engine, other.engine, self._one_image())
        first.report.speed = {**(first.report.speed or {}), second.report.precision: ratio}
        second.report.speed = {**(second.report.speed or {}), first.report.precision: 1 / ratio}
        return ratio >= least

    def _one_image(self) -> np.ndarray:
        from regard.api.export import _batches
        from regard.export.engines import EngineModel

        wanted = self.wanted
        model = EngineModel(None, self.made.contract, wanted.predictor.preprocessing)
        return model.pixels(_batches(wanted.predictor, wanted.shape)[0])

    def _tell_speed(self, exported: Exported) -> None:
        """A warning where int8 is slower than bf16, or than fp32 in ONNX Runtime, which has no bf16 here."""
        from regard.export.write import write

        precision = "bf16" if self.wanted.to == "openvino" else "fp32"
        made = replace(self.made, contract={**self.made.contract, "precision": precision})
        file = self._file(precision)
        write(made, file, self.wanted.to)
        from regard.export.verify import TOLERANCE, Report

        other = Exported(file, Report(file.name, precision, TOLERANCE[precision], self.wanted.max_drop))
        if not self._speed(exported, other, 1.0):
            assert exported.report.speed is not None
            exported.report.warnings.append(
                f"int8 is {exported.report.speed[precision]:.2f} times as fast as {precision} here: "
                f"--precision {precision} is the faster file"
            )
