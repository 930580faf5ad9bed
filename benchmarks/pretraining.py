"""What ten minutes of pre-training are worth: photographs of hands that sign digits, few labels or all of them.

Run: .venv/bin/python benchmarks/pretraining.py [PART ...] [--photos FOLDER] [--seeds N]
Parts: distill (DINOv2 teaches the student of pretrain-photos), run (a DINOv2 that was fine-tuned on all labels does),
few (one that was fine-tuned on ten labels a class does), dinov2 (that one itself), frozen (a linear head on DINOv2 as
it is), mixers (the student with other mixers), masked (MAE), labels (accuracy against labels a class), step (how much
of a step is the student), speed (student against teacher). Each cell is the real command line: pre-training, then
fine-tuning with ten labels a class, and with all labels, and both from scratch. The first cell of each teacher
(seed 0) is alone on the machine: ten minutes of wall time from an empty store, and one minute of fine-tuning with all
labels. All others do as many steps as that one did, or as fit into the same processor time where their step costs more
or less; they run on one core each, as many at a time as there are cores. A cell that has ended is kept in the results
file, and a second call goes on with the next one. `--smoke` tries every kind of cell for two steps; `--list` shows what
is there.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

import pretraining_cost
from peer import result_path, save
from regard.compare.label_efficiency import FILE as LABEL_EFFICIENCY
from regard.compare.per_sample import evaluated, results_of
from regard.files import expanded
from regard.reading import read_json
from regard.tasks import create_task
from regard.training import Run
from regard.training.load_run import load_predictor

HERE = Path(__file__).resolve().parent
PHOTOS = HERE.parents[1] / "shared" / "photos"
NAME = "pretraining"
MINUTES = 10.0
FEW_STEPS = 200  # of fine-tuning with ten labels a class
TAUGHT_BY_RUN = ("run", "few")
OF_DINOV2 = ("dinov2", "frozen")
PARTS = ("distill", *TAUGHT_BY_RUN, *OF_DINOV2, "masked", "labels")
RUN_SETTINGS = ("pretrain.teacher_block=6", "train.lr=1e-3")  # as docs/pretrain.md says; chosen on training images
MIXERS = ("performer", "fourier", "mlp", "conv")
SPLIT = ("data.val_fraction=0.2", "data.split_seed=0")
TEACHER_MINUTES = 4


class Cell(NamedTuple):
    part: str
    mixer: str
    seed: int

    @property
    def key(self) -> str:
        return f"{self.part}, {self.mixer}, seed {self.seed}"

    @property
    def is_timed(self) -> bool:
        """Whether it has ten minutes and all cores; the others have its steps."""
        return self.part in ("distill", "run") and self.mixer == "attention" and self.seed == 0


FIRST, FIRST_RUN = Cell("distill", "attention", 0), Cell("run", "attention", 0)


def cells(parts: Sequence[str], seeds: int) -> list[Cell]:
    """What is timed first, then each seed of all parts."""
    found = [FIRST] if set(parts) - {"run", *OF_DINOV2, "step", "speed"} else []
    found += [FIRST_RUN] if "run" in parts else []
    for seed in range(seeds):
        own = PARTS if seed == 0 else PARTS[:-1]  # labels has one seed, and draws of its own
        found += [Cell(part, "attention", seed) for part in own if part in parts]
        if {"distill", "masked"} & set(parts):
            found.append(Cell("scratch", "attention", seed))
        if "mixers" in parts:
            found += [Cell(part, mixer, seed) for mixer in MIXERS for part in ("distill", "scratch")]
    return list(dict.fromkeys(found))


class Place(NamedTuple):
    """Where a call works."""

    photos: Path
    folder: Path
    """Runs and features, which are kept until the call ends, or in `--runs`."""
    smoke: bool

    def regard(self, command: str, *settings: str, options: Sequence[str] = (), threads: int | None = None) -> None:
        """Runs a command. RuntimeError, with the last lines that it said, where it fails."""
        words = [word for setting in settings for word in ("--set", setting)]
        steps = ["--set", "train.max_steps=2", "--set", "train.batch_size=8"] if self.smoke else []
        line = [sys.executable, "-m", "regard", *command.split(), *options, *words, *steps]
        own = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(line, capture_output=True, text=True, env={**os.environ, **own})
        if done.returncode:
            raise RuntimeError("\n".join((done.stdout + done.stderr).strip().splitlines()[-5:]))

    @property
    def data(self) -> list[str]:
        return ["--data", f"folder:{self.photos / 'signdigits'}"]

    @property
    def store(self) -> str:
        return f"features.folder={self.folder / 'features'}"


def settings_of(cell: Cell, place: Place) -> list[str]:
    """Of a pre-training."""
    mixer = [] if cell.mixer == "attention" else [f"model.mixer={cell.mixer}"]
    if cell.part == "masked":
        return [*mixer, "pretrain.method=mae", "train.max_minutes=none"]
    taught = RUN_SETTINGS if cell.part in TAUGHT_BY_RUN else ()
    return [*mixer, place.store, *taught, *(["features.views=1"] if place.smoke else [])]


def run(cell: Cell, place: Place, kept: Mapping[str, Any]) -> dict[str, Any]:
    """Pre-trains one cell, fine-tunes it, and returns its record."""
    folder = folder_of(cell, place)
    shutil.rmtree(folder, ignore_errors=True)
    found: dict[str, Any] = {"part": cell.part, "mixer": cell.mixer, "seed": cell.seed}
    seeds, threads = [f"seed={cell.seed}", *SPLIT], None if cell.is_timed else 1
    if cell.part in OF_DINOV2:
        one = teacher(cell, place, threads)
        return found | {"ten": Run.open(one).summary()["accuracy"], **right(one, "ten")} | now()
    if cell.part == "labels":
        return found | label_efficiency(place, threads)
    began: list[str] = []
    if cell.part != "scratch":
        options = [*place.data, "--out", str(folder / "run")]
        if cell.part in TAUGHT_BY_RUN:
            one = teacher(cell, place, threads)
            options += ["--teacher", str(one)]
            found["teacher"] = Run.open(one).summary()["accuracy"]
        budget: list[str] = []
        if cell.is_timed:
            options += [] if place.smoke else ["--minutes", f"{MINUTES:g}"]
        else:
            found["relative_step"] = relative_step(cell, place)
            budget = [f"train.max_steps={steps_of(cell, kept, found['relative_step'])}", "train.max_minutes=none"]
        start = time.monotonic()
        settings = [*seeds, *settings_of(cell, place), *budget]
        place.regard("pretrain pretrain-photos", *settings, options=options, threads=threads)
        found["wall_seconds"] = round(time.monotonic() - start, 1)
        summary = read_json(folder / "run" / "summary.json")
        progress = read_json(next((folder / "run" / "state").glob("step-*")) / "progress.json")
        found |= {key: summary[key] for key in ("loss", "knn", "linear", "accuracy", "steps") if key in summary}
        found |= {f"{key}_seconds": round(progress[f"{key}_seconds"], 1) for key in ("prepared", "training")}
        began = [f"model.weights={folder / 'run'}"]
        if cell.part in TAUGHT_BY_RUN:  # the student is a classifier already
            return found | now()
    mixer = [] if cell.mixer == "attention" else [f"model.mixer={cell.mixer}"]
    few = ["data.per_class=10", f"data.per_class_seed={cell.seed}", f"train.max_steps={FEW_STEPS}"]
    every = [*place_in_time(cell, kept), "train.evaluate_every_steps=100000"]
    for name, settings in (("ten", [*few, "train.max_minutes=none"]), ("all", every)):
        options = [*place.data, "--out", str(folder / name)]
        place.regard("train small-photos", *seeds, *mixer, *began, *settings, options=options, threads=threads)
        summary = read_json(folder / name / "summary.json")
        found |= {name: summary["accuracy"], f"{name}_steps": summary["steps"], **right(folder / name, name)}
    return found | now()


def right(run: Path, name: str) -> dict[str, Any]:
    """Which held-out images the run's model names rightly: a bit each, in hexadecimal."""
    task = create_task(Run.open(run).recipe())
    scores = results_of(task, evaluated(task, load_predictor(run)))["score"]
    return {f"{name}_right": np.packbits(scores).tobytes().hex(), "held_out": len(scores)}


def label_efficiency(place: Place, threads: int | None) -> dict[str, Any]:
    """Medians of the accuracy with so many labels a class, of the first cell's run."""
    run = folder_of(FIRST, place) / "run"
    place.regard("pretrain", options=["--resume", str(run), "--label-efficiency"], threads=threads)
    found = read_json(run / LABEL_EFFICIENCY)
    curves = {curve["name"]: [statistics.median(draws) for draws in curve["scores"]] for curve in found["curves"]}
    return {key: found[key] for key in ("labels", "draws", "steps")} | {"curves": curves} | now()


def folder_of(cell: Cell, place: Place) -> Path:
    return place.folder / cell.key.replace(", ", "-").replace(" ", "-")


def place_in_time(cell: Cell, kept: Mapping[str, Any]) -> list[str]:
    """One minute of fine-tuning with all labels, or as many steps as the first cell did in it."""
    if cell.is_timed:
        return ["train.max_minutes=1"]
    return [f"train.max_steps={kept[FIRST.key]['all_steps']}", "train.max_minutes=none"]


def steps_of(cell: Cell, kept: Mapping[str, Any], relative: float) -> int:
    """As many steps as the timed cell of its teacher did in ten minutes, by what a step costs beside it."""
    first = kept[(FIRST_RUN if cell.part in TAUGHT_BY_RUN and FIRST_RUN.key in kept else FIRST).key]
    if cell.part == "masked":  # which has no features to wait for
        return round(
            (first["training_seconds"] + first["prepared_seconds"])
            / first["training_seconds"]
            * first["steps"]
            / relative
        )
    return round(first["steps"] / relative)


def relative_step(cell: Cell, place: Place) -> float:
    """Seconds of a step of the cell's student over those of the first cell's, on one core in turn."""
    if cell.mixer == "attention" and cell.part != "masked":
        return 1.0
    own, first = ([*SPLIT, *settings_of(one, place), "train.max_steps=1"] for one in (cell, FIRST))
    return pretraining_cost.relative_step(place.photos, own, first, smoke=place.smoke)


def now() -> dict[str, Any]:
    return {"date": datetime.now(UTC).date().isoformat()}


def teacher(cell: Cell, place: Place, threads: int | None) -> Path:
    """A run of DINOv2: all of it fine-tuned, once on all labels, or once a seed on ten a class; or a head alone."""
    name, recipe = f"teacher-few-{cell.seed}", "finetune-photos-all"
    limit = ["data.per_class=10", f"data.per_class_seed={cell.seed}", f"seed={cell.seed}"]
    if cell.part == "run":
        name, limit = "teacher", [f"train.max_minutes={TEACHER_MINUTES}"]
    elif cell.part == "frozen":
        name, recipe = f"frozen-few-{cell.seed}", "finetune-photos"
        limit.append(place.store)
    else:
        limit += [f"train.max_steps={FEW_STEPS}", "train.max_minutes=none"]
    folder = place.folder / name
    with _one_teacher:
        if not (folder / "summary.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            options = [*place.data, "--out", str(folder)]
            place.regard(f"train {recipe}", *SPLIT, *limit, options=options, threads=threads)
    return folder


_one_teacher = Lock()  # two cells may want the same


def costs(place: Place) -> dict[str, Callable[[], dict[str, Any]]]:
    """What is no cell."""
    settings = [*SPLIT, *(["features.views=1"] if place.smoke else [])]
    settings.append(f"{place.store}-of-a-step")
    return {
        "step": lambda: pretraining_cost.step(place.photos, settings, smoke=place.smoke),
        "speed": lambda: pretraining_cost.speed(smoke=place.smoke),
    }


NOT_SHOWN = ("part", "mixer", "seed", "date", "held_out")


def show(kept: Mapping[str, Any]) -> None:
    for key, record in kept.items():
        print(key, {name: value for name, value in record.items() if name not in NOT_SHOWN and "_right" not in name})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [*PARTS, "mixers", "step", "speed"]
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(known)}; all unless given")
    parser.add_argument("--photos", type=expanded, default=PHOTOS, help="the folder of the data sets (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=expanded, metavar="FOLDER", help="keep runs and features here")
    parser.add_argument("--results", type=expanded, help="another results file")
    parser.add_argument("--smoke", action="store_true", help="two steps of every kind of cell; nothing is measured")
    parser.add_argument("--list", action="store_true", help="what was measured")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(known):
        parser.error(f"unknown part {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    parts = given.parts or known
    if not (given.photos / "signdigits").is_dir():
        raise SystemExit(f"{given.photos / 'signdigits'}: there is no such folder; name it with --photos")
    with tempfile.TemporaryDirectory(prefix="pretraining-") as temporary:
        folder = given.runs or Path(temporary)
        place = Place(given.photos, folder, given.smoke)
        file = given.results or (folder / "smoke.json" if given.smoke else result_path(NAME))
        kept: dict[str, Any] = read_json(file)["results"] if file.exists() else {}
        if given.list:
            show(kept)
            return
        for name, measure in costs(place).items():
            if name in parts and name not in kept:
                kept[name] = measure() | now()
                print(name, kept[name], flush=True)
                save(NAME, kept, path=file)
        if given.smoke:  # the trainings of labels have steps of their own
            parts = [part for part in parts if part != "labels"]
        todo = [cell for cell in cells(parts, 1 if given.smoke else given.seeds) if cell.key not in kept]
        failed = 0

        def work(cell: Cell) -> None:
            nonlocal failed
            try:
                record = run(cell, place, kept)
            except RuntimeError as error:
                failed += 1
                print(f"{cell.key}: {error}", flush=True)
                return
            with turn:
                kept[cell.key] = record
                save(NAME, kept, path=file)
                print(cell.key, record, flush=True)

        turn = Lock()
        for cell in [cell for cell in todo if cell.is_timed]:
            work(cell)
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            list(pool.map(work, [cell for cell in todo if not cell.is_timed]))
    raise SystemExit(f"{failed} cells failed" if failed else None)


if __name__ == "__main__":
    main()
