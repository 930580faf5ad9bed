"""`--engine`: a run that another engine answers, by a file that is written once, verified, and kept."""

import copy
import hashlib
import json
import os
import platform
import shutil
import statistics
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from regard.api.engine_files import (
    ENGINES,
    MAX_DROP,
    OF_FILES,
    PARITY_ALONE,
    installed_engines,
    program,
    require_engine,
    verified_file,
)
from regard.api.export import evaluation_of, quiet, verify_answers
from regard.api.names import find
from regard.errors import RegardError, unknown
from regard.files import cache_folder, whole_folder, write_json
from regard.weights.hub import PREFIX as HUB

if TYPE_CHECKING:
    from regard.export.write import Made
    from regard.tasks import Classifier, Detector

AUTO = "auto"
HASHES, CHOICES, REPORT = "sha256.json", "auto.json", "export.json"
KEPT = 2
"""Files of one engine and precision in a run's folder: of its weights, and of its best ones."""
TURNS = 9


def with_engine(
    predictor: "Classifier | Detector", run: str | Path, engine: str, precision: str | None = None
) -> "Classifier | Detector":
    """A copy of a run's predictor, on the CPU, that an engine answers: "torch", "optimize", "onnx", "openvino", "auto".

    Files are written once, below the run's folder or in the user's cache folder, and are verified as those of
    `export_model` are: by their numbers, and those of bf16 by what the run held out too. A damaged one is written anew.
    "auto": the fastest for one image on this machine, of those that pass; remembered beside the files.
    precision: "fp32" or "bf16"; fp32 unless given, and of "auto" any that this processor has instructions for.
    `predictor.engine` says which one answers. RegardError for an unknown or missing engine, and for a file that does
    not answer as the run does.
    """
    if engine not in (*ENGINES, AUTO):
        raise unknown("engine", engine, (*ENGINES, AUTO), where="--engine")
    kept = _Kept(predictor, run)
    if engine == AUTO:
        engine, precision = kept.fastest(precision)
    precision = precision or "fp32"
    require_engine(engine, precision, "--engine")
    answers: Classifier | Detector = kept.answered_by(engine, precision)
    return answers


class _Kept:
    """The files of one predictor, and what was chosen of them."""

    def __init__(self, predictor: "Classifier | Detector", run: str | Path) -> None:
        from regard.export.write import contract_for, with_size

        self.predictor, self.run = predictor, run
        folder = None if str(run).startswith(HUB) else find(run).folder
        self.of_run = folder is not None and os.access(folder, os.W_OK)
        self.folder = (folder if folder is not None and self.of_run else cache_folder()) / "engines"
        self.shape = with_size(predictor, None)[1]
        contract = contract_for(predictor, self.shape, "float", "", None)
        self.digest = hashlib.sha256(json.dumps(contract, sort_keys=True).encode()).hexdigest()[:16]
        self.made: Made | None = None

    def answered_by(self, engine: str, precision: str) -> Any:
        from regard.export import EngineModel, open_file
        from regard.tasks import Detector

        if engine in OF_FILES:
            opened = open_file(self.file(engine, precision))
            found: Any = copy.copy(self.predictor)
            found.model = EngineModel(opened.engine, opened.contract, self.predictor.preprocessing)
        elif engine == "optimize":
            found = self.optimized(precision)
        else:
            found = self.predictor.fused() if isinstance(self.predictor, Detector) else copy.copy(self.predictor)
        found.engine = f"{engine} {precision}"
        return found

    def file(self, engine: str, precision: str) -> Path:
        """The verified file: the one that is there and whole, or a new one."""
        from regard.export.write import FILE_NAMES

        folder = self.folder / f"{engine}-{precision}-{self.digest}"
        file = folder / FILE_NAMES[engine]
        if not _is_whole(folder):
            shutil.rmtree(folder, ignore_errors=True)
            try:
                self._write(folder, file.name, engine, precision)
            except RegardError:
                if not _is_whole(folder):  # another process was faster
                    raise
        return file

    def _write(self, folder: Path, name: str, engine: str, precision: str) -> None:
        self.made = self.made or program(self.predictor, "float")
        known = PARITY_ALONE if precision == "fp32" else {}
        with whole_folder(folder) as beside, quiet():
            exported = verified_file(
                self.predictor, self.made, beside / name, engine, precision, run=self.run, known=known
            )
            if not exported.passed:
                raise RegardError(f"--engine {engine}: does not answer as the run does: {exported.report.faults[0]}")
            write_json(beside / REPORT, exported.report.to_dict())
            write_json(beside / HASHES, {file.name: _sha256(file) for file in sorted(beside.iterdir())})
        if self.of_run:
            others = sorted(self.folder.glob(f"{engine}-{precision}-*"), key=lambda path: path.stat().st_mtime)
            for other in others[:-KEPT]:
                shutil.rmtree(other, ignore_errors=True)

    def optimized(self, precision: str) -> Any:
        """The predictor with packed weights. RegardError where it does not answer as the run does."""
        from regard.export.optimize import optimize
        from regard.export.verify import TOLERANCE, Report

        faster = optimize(self.predictor, precision)
        report = Report("", precision, TOLERANCE[precision], MAX_DROP)
        with quiet():
            before = None if precision == "fp32" else evaluation_of(self.predictor, self.run, None, report)
            verify_answers(faster, self.predictor, report, before, run=self.run, shape=self.shape)
        if not report.passed:
            raise RegardError(f"--engine optimize: does not answer as the run does: {report.faults[0]}")
        return faster

    def fastest(self, precision: str | None) -> tuple[str, str]:
        """(engine, precision), by turns on one image; as remembered where it was chosen on this machine before."""
        from regard.ops.precision import has_bf16

        asked = [precision] if precision else ["fp32", *(["bf16"] if has_bf16(torch.device("cpu")) else [])]
        place, key = self.folder / CHOICES, f"{_machine()}: {self.digest} {'+'.join(asked)}"
        choices = _choices(place)
        chosen = choices.get(key, {})
        if chosen.get("precision") in ENGINES.get(str(chosen.get("engine")), ()):
            return chosen["engine"], chosen["precision"]
        here = installed_engines()
        milliseconds = self._times([(engine, one) for one in asked for engine in here if one in ENGINES[engine]])
        best = min(milliseconds, key=lambda name: milliseconds[name])
        engine, _, found = best.partition(" ")
        with suppress(RegardError, OSError):  # it is chosen again the next time
            place.parent.mkdir(parents=True, exist_ok=True)
            write_json(place, {**choices, key: {"engine": engine, "precision": found, "milliseconds": milliseconds}})
        return engine, found

    def _times(self, candidates: list[tuple[str, str]]) -> dict[str, float]:
        """Milliseconds of those that pass."""
        from regard.export.random_images import random_images

        models, fault = {}, ""
        for engine, precision in candidates:
            try:
                models[f"{engine} {precision}"] = self.answered_by(engine, precision).model
            except RegardError as error:
                fault = str(error)
        if not models:
            raise RegardError(fault or "--engine auto: there is no engine of this precision here")
        images, seconds = random_images(self.predictor, 1), {name: [0.0] * TURNS for name in models}
        with torch.inference_mode():
            for turn in range(-2, TURNS):  # the first two are not counted
                for name in list(models)[:: 1 if turn % 2 == 0 else -1]:
                    began = time.perf_counter()
                    models[name](images)
                    seconds[name][max(turn, 0)] = time.perf_counter() - began
        return {name: 1000 * statistics.median(found) for name, found in seconds.items()}


def _is_whole(folder: Path) -> bool:
    """Whether each file of a folder is as it was written."""
    from regard.reading import read_json

    try:
        hashes = read_json(folder / HASHES)
        if not isinstance(hashes, Mapping) or not hashes:
            return False
        if any(_sha256(folder / Path(name).name) != wanted for name, wanted in hashes.items()):
            return False
        return any(Path(name).suffix in (".onnx", ".xml") for name in hashes)
    except (RegardError, OSError, ValueError):
        return False


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _choices(file: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(found, dict) and all(isinstance(one, dict) for one in found.values()):
            return found
    return {}


def _machine() -> str:
    """Its name, its processor, and the versions of what is timed."""
    from regard.export import installed
    from regard.training import machine

    own = machine()
    packages = [f"{name} {installed(name)}" for name in ("torch", "onnxruntime", "openvino")]
    cores = f"{own['cores']} cores, {own['threads']} threads"
    return ", ".join([platform.node(), str(own["processor"]), cores, *packages])
