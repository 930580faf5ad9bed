"""What ten minutes of pre-training are worth: photographs of hands that sign digits, few labels or all of them.

Run: .venv/bin/python benchmarks/pretraining.py [PART ...] [--photos FOLDER] [--seeds N]
Parts: distill (DINOv2 teaches the student of pretrain-photos), run (a fine-tuned DINOv2 does), mixers (the student with
other mixers, one seed), masked (MAE), step (how much of a step is the student), speed (student against teacher). Each
cell is the real command line, alone on the machine: pre-training of ten minutes of wall time from an empty store, then
fine-tuning with ten labels a class, and with all labels for one minute, and both from scratch. Cells after the first
with one teacher take its features from the store, and have so many seconds less as the first one needed for them. A
cell that has ended is kept in the results file, and a second call goes on with the next one. `--smoke` tries every kind
of cell for two steps; `--list` shows what is there.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch

from peer import interleaved, median_ratio, result_path, save, without_gradients
from regard.files import expanded
from regard.models import build
from regard.reading import read_json
from regard.recipes import load_recipe
from regard.tasks import PretrainingTask, with_weights_named

HERE = Path(__file__).resolve().parent
PHOTOS = HERE.parents[1] / "shared" / "photos"
NAME = "pretraining"
MINUTES = 10.0
TEN_STEPS = 250  # of fine-tuning with ten labels a class
MIXERS = ("performer", "fourier", "mlp", "conv")
SPLIT = ("data.val_fraction=0.2", "data.split_seed=0")
TEACHER_MINUTES = 9


class Cell(NamedTuple):
    part: str
    mixer: str
    seed: int

    @property
    def key(self) -> str:
        return f"{self.part}, {self.mixer}, seed {self.seed}"


def cells(parts: Sequence[str], seeds: int) -> list[Cell]:
    """Seed 0 of all parts first, and of the mixers that alone."""
    found = []
    for seed in range(seeds):
        found += [Cell(part, "attention", seed) for part in ("distill", "run", "masked") if part in parts]
        if seed == 0 and "mixers" in parts:
            found += [Cell("distill", mixer, 0) for mixer in MIXERS]
        if "distill" in parts or "masked" in parts or "run" in parts:
            found.append(Cell("scratch", "attention", seed))
        if seed == 0 and "mixers" in parts:
            found += [Cell("scratch", mixer, 0) for mixer in MIXERS]
    return list(dict.fromkeys(found))


class Place(NamedTuple):
    """Where a call works."""

    photos: Path
    folder: Path
    """Runs and features, which are kept until the call ends, or in `--runs`."""
    smoke: bool

    def regard(self, command: str, *settings: str, options: Sequence[str] = ()) -> None:
        """Runs a command. RuntimeError, with the last lines that it said, where it fails."""
        words = [word for setting in settings for word in ("--set", setting)]
        steps = ["--set", "train.max_steps=2", "--set", "train.batch_size=8"] if self.smoke else []
        line = [sys.executable, "-m", "regard", *command.split(), *options, *words, *steps]
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError("\n".join((done.stdout + done.stderr).strip().splitlines()[-5:]))

    @property
    def data(self) -> list[str]:
        return ["--data", f"folder:{self.photos / 'signdigits'}"]


def run(cell: Cell, place: Place, features_seconds: float) -> dict[str, Any]:
    """Pre-trains one cell, fine-tunes it, and returns its record. features_seconds: that the store spares it."""
    folder = place.folder / cell.key.replace(", ", "-").replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    own = [f"seed={cell.seed}", *SPLIT]
    mixer = [] if cell.mixer == "attention" else [f"model.mixer={cell.mixer}"]
    found: dict[str, Any] = {"part": cell.part, "mixer": cell.mixer, "seed": cell.seed}
    began: list[str] = []
    if cell.part != "scratch":
        options = [*place.data, "--out", str(folder / "run")]
        settings = [*own, *mixer]
        if not place.smoke:
            options += ["--minutes", f"{MINUTES - features_seconds / 60:.3f}"]
        if cell.part == "masked":
            settings += ["pretrain.method=mae", "features.views=1", "pretrain.teacher_size=none"]
        else:
            settings += [f"features.folder={place.folder / 'features'}"]
        if cell.part == "run":
            options += ["--teacher", str(teacher(place))]
            settings += ["pretrain.teacher_size=none"]
        start = time.monotonic()
        place.regard("pretrain pretrain-photos", *settings, options=options)
        found["wall_seconds"] = round(time.monotonic() - start, 1)
        summary = read_json(folder / "run" / "summary.json")
        state = next((folder / "run" / "state").glob("step-*")) / "progress.json"
        progress = read_json(state)
        found |= {key: summary[key] for key in ("loss", "knn", "linear", "accuracy", "steps") if key in summary}
        found["features_seconds"] = round(progress["prepared_seconds"], 1)
        began = [f"model.weights={folder / 'run'}"]
        if cell.part == "run":  # the student is a classifier already
            return found | now()
    steps = f"train.max_steps={TEN_STEPS}"
    labels = ["data.per_class=10", f"data.per_class_seed={cell.seed}", steps, "train.max_minutes=none"]
    for name, settings in (("ten", labels), ("all", ["train.max_minutes=1"])):
        out = folder / name
        options = [*place.data, "--out", str(out)]
        every = "train.evaluate_every_steps=100000"
        place.regard("train small-photos", *own, *mixer, *began, *settings, every, options=options)
        found[name] = read_json(out / "summary.json")["accuracy"]
    return found | now()


def now() -> dict[str, Any]:
    return {"date": datetime.now(UTC).date().isoformat()}


def teacher(place: Place) -> Path:
    """All of DINOv2, fine-tuned on all labels: trained once a call."""
    folder = place.folder / "teacher"
    if not (folder / "summary.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        options = [*place.data, "--out", str(folder)]
        place.regard("train finetune-photos-all", *SPLIT, f"train.max_minutes={TEACHER_MINUTES}", options=options)
    return folder


def step(place: Place) -> dict[str, Any]:
    """Seconds of a step of training with stored features, and how much of it is the student."""
    recipe = with_weights_named(
        load_recipe(
            "pretrain-photos",
            [*SPLIT, f"features.folder={place.folder / 'features'}", *(["features.views=1"] if place.smoke else [])],
            address=f"folder:{place.photos / 'signdigits'}",
        )
    )
    task = PretrainingTask(recipe)  # type: ignore[arg-type]
    learner = task.build_model()
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-3)
    batches = iter(task.training_loader(task.order(rank=0, world_size=1)))
    reading, learning = [], []
    for _ in range(3 if place.smoke else 40):
        start = time.perf_counter()
        batch = next(batches)
        read = time.perf_counter()
        task.loss(learner, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
        reading.append(read - start)
        learning.append(time.perf_counter() - read)
    reading, learning = reading[2:], learning[2:]
    share = statistics.median(b / (a + b) for a, b in zip(reading, learning, strict=True))
    return {
        "reading_seconds": statistics.median(reading),
        "student_seconds": statistics.median(learning),
        "student_share": share,
        "batch_size": recipe.train.batch_size,
    } | now()


def speed(place: Place) -> dict[str, Any]:
    """How many times as fast as its teacher at 224 pixels the student looks at images, in the same precision, eager."""
    recipe = load_recipe("pretrain-photos", address="digits", task="pretraining")
    student = build(recipe.model.config(num_classes=10)).eval()
    size = student.config.img_size
    dinov2 = build(load_recipe("finetune-photos").model.config(num_classes=10)).eval()
    found: dict[str, Any] = {}
    for precision in ("fp32", "bf16"):
        for batch in (1, 32):
            small, large = torch.randn(batch, 3, size, size), torch.randn(batch, 3, 224, 224)

            def look(model: torch.nn.Module, images: torch.Tensor, half: bool) -> torch.Tensor:
                with torch.autocast("cpu", torch.bfloat16, enabled=half):
                    return model(images)

            half = precision == "bf16"
            ways = {
                "student": without_gradients(lambda small=small, half=half: look(student, small, half)),
                "teacher": without_gradients(lambda large=large, half=half: look(dinov2, large, half)),
            }
            seconds = interleaved(ways, repetitions=3 if place.smoke else 15)
            found[f"{precision}, batch {batch}"] = {
                "student_ms": 1000 * statistics.median(seconds["student"]) / batch,
                "teacher_ms": 1000 * statistics.median(seconds["teacher"]) / batch,
                "ratio": median_ratio(seconds["teacher"], seconds["student"]),
            }
    found["parameters"] = sum(parameter.numel() for parameter in student.parameters())
    return found | now()


def show(kept: Mapping[str, Any]) -> None:
    for key, record in kept.items():
        print(key, {name: value for name, value in record.items() if name not in ("part", "mixer", "seed", "date")})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = ["distill", "run", "mixers", "masked", "step", "speed"]
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
        for name, measure in (("step", step), ("speed", speed)):
            if name in parts and name not in kept:
                kept[name] = measure(place)
                print(name, kept[name], flush=True)
                save(NAME, kept, path=file)
        failed = 0
        for cell in cells(parts, 1 if given.smoke else given.seeds):
            if cell.key in kept:
                continue
            with_features = [one for one in kept.values() if one.get("part") == cell.part and "features_seconds" in one]
            spared = max((one["features_seconds"] for one in with_features), default=0.0)
            try:
                kept[cell.key] = run(cell, place, spared)
            except RuntimeError as error:
                failed += 1
                print(f"{cell.key}: {error}", flush=True)
                continue
            print(cell.key, kept[cell.key], flush=True)
            save(NAME, kept, path=file)
    raise SystemExit(f"{failed} cells failed" if failed else None)


if __name__ == "__main__":
    main()
