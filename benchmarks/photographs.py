"""What is learned from photographs in 3, 5 and 10 minutes, beside other libraries, from the command to the figures.

Run: .venv/bin/python benchmarks/photographs.py [PART ...] [--photos FOLDER] [--seeds N]
Parts: raccoon, bccd, images (fewer raccoons), signdigits, chosen (no recipe is named); and tuning: each peer with
several settings for three minutes. A peer's other cells take the one that was best on that data set's held-out images,
so it is chosen in its favour; run this part first. Each cell is a training of its own in a process of its own: data
set, way, minutes of wall time and seed. Reading, features (from an empty store), training, evaluation and report all
count, and the schedule is fitted to the minutes. A cell that has finished is kept in the results file, and a second
call goes on with the next one; a cell that was killed is begun anew. A cell has all cores to itself: two calls take
turns, and nothing else should run. `--list` shows the cells and the hours that are left; `--smoke` tries every kind of
cell for two steps on a handful of images.
"""

import argparse
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from peer import result_path, save
from photograph_data import SUBSET_SEED, tiny_classes, voc_subset
from regard.files import expanded
from regard.reading import read_json
from regard.recipes import shipped_recipes
from regard.training import Run, versions

HERE = Path(__file__).resolve().parent
PHOTOS = HERE.parents[1] / "shared" / "photos"
NAME = "photographs"
MINUTES = (10, 3, 5)  # in the order of what one wants to know first
NUMBERS = (25, 50, 100)  # of raccoons; all 160 are the part `raccoon`
PACKAGES = ("timm", "transformers", "scikit-learn", "faster-coco-eval")


class Way(NamedTuple):
    """One way to train: a shipped recipe on the real command line, or a peer."""

    label: str
    recipe: str | None = None
    """"" for the one that is chosen."""
    settings: tuple[str, ...] = ()
    on: Mapping[str, tuple[str, ...]] = {}
    """Settings for one data set."""
    stores_features: bool = False
    after: float = 25.0
    """Seconds of the wall time that `train.max_minutes` does not count: the start of Python and the report."""


WAYS: dict[str, Way] = {
    "detr-photos": Way("`detr-photos`", "detr-photos", stores_features=True),
    "detr-small": Way(
        "`detr-small`",
        "detr-small",
        ("augment.colour=0.3", "data.shortest=288", "data.longest=384"),
    ),
    "detr-small-pretrained": Way("`detr-small-pretrained`", "detr-small-pretrained", ("augment.colour=0.3",)),
    "finetune-photos": Way("`finetune-photos`", "finetune-photos", stores_features=True),
    "finetune-photos-all": Way("`finetune-photos-all`", "finetune-photos-all"),
    "chosen": Way("`regard train --data` alone", ""),
    "rt-detr": Way("RT-DETR (transformers), small"),
    "rt-detr-lite0": Way("RT-DETR (transformers), EfficientNet-Lite0"),
    "faster-rcnn": Way("Faster R-CNN (torchvision), ResNet-10"),
    "faster-rcnn-lite0": Way("Faster R-CNN (torchvision), EfficientNet-Lite0"),
    "faster-rcnn-dinov2": Way("Faster R-CNN (torchvision) on frozen DINOv2"),
    "ssdlite": Way("SSDLite (torchvision)"),
    "yolo": Way("YOLO of Ultralytics, nano"),
    "logistic-regression": Way("scikit-learn's logistic regression, same features"),
    "resnet18": Way("ResNet-18 (timm)"),
}
DETECTORS = ("detr-photos", "detr-small", "detr-small-pretrained")
PEERS = ("faster-rcnn-dinov2", "faster-rcnn-lite0", "rt-detr-lite0", "rt-detr", "faster-rcnn", "ssdlite", "yolo")
# What a peer's settings are chosen among, by the part `tuning`; the others stay as photograph_peers.py has them.
LARGER = "shortest=320 longest=427"
TUNING: dict[str, tuple[str, ...]] = {
    "faster-rcnn-dinov2": ("lr=3e-4", "lr=1e-3", "lr=2e-3", "shortest=252 longest=336"),
    "faster-rcnn-lite0": ("lr=3e-4", "lr=1e-3", "backbone=1.0", LARGER),
    "rt-detr-lite0": ("lr=8e-4", "lr=2e-3", "backbone=1.0", LARGER),
    "rt-detr": ("lr=8e-4", "lr=2e-3", "batch_size=16", LARGER),
    "faster-rcnn": ("lr=3e-4", "lr=1e-3", "lr=2e-3", LARGER),
    "ssdlite": ("lr=1e-3", "lr=3e-3", "batch_size=8"),
    "resnet18": ("lr=1e-3", "lr=2e-3", "lr=5e-3", "side=96"),
}
CLASSIFIERS = ("finetune-photos", "finetune-photos-all")


class Cell(NamedTuple):
    data: str
    way: str
    minutes: int
    seed: int
    change: str = ""
    """What `tuning` tries, such as lr=1e-3."""

    @property
    def key(self) -> str:
        way = f"{self.way} ({self.change})" if self.change else self.way
        return f"{self.data}, {way}, {self.minutes} min, seed {self.seed}"


def cells(parts: Sequence[str], seeds: int, peer_seeds: int) -> list[Cell]:
    """Those of the parts, each once: tuning, then all with seed 0, of these first the ten minutes."""
    found: list[Cell] = []
    if "tuning" in parts:
        for way, changes in TUNING.items():
            sets = ("signdigits",) if way == "resnet18" else ("raccoon", "bccd")
            found += [Cell(data, way, 3, 0, change) for data in sets for change in changes]
    for seed in range(max(seeds, peer_seeds)):
        ours, theirs = seed < seeds, seed < peer_seeds
        for minutes in MINUTES:
            for data in ("raccoon", "bccd"):
                if data in parts:
                    ways = (DETECTORS if ours else ()) + (PEERS if theirs else ())
                    found += [Cell(data, way, minutes, seed) for way in ways]
            if "images" in parts and minutes == 10 and ours:
                found += [
                    Cell(data, "detr-photos", 10, seed) for data in ("raccoon", *map("raccoon-{}".format, NUMBERS))
                ]
            if "signdigits" in parts and minutes != 5:
                ways = (CLASSIFIERS if ours else ()) + (("resnet18",) if theirs else ())
                found += [Cell("signdigits", way, minutes, seed) for way in ways]
        if "chosen" in parts and ours:
            found += [Cell(data, "chosen", 10, seed) for data in ("raccoon", "bccd", "signdigits")]
        if "signdigits" in parts and seed == 0:  # it has no seed, and takes as long as its features
            found.append(Cell("signdigits", "logistic-regression", 3, 0))
    return list(dict.fromkeys(found))


def smoke_cells() -> list[Cell]:
    """Every way once, and a subset."""
    detectors = [Cell("bccd", way, 3, 0) for way in (*DETECTORS, *PEERS)]
    classifiers = [Cell("signdigits", way, 3, 0) for way in (*CLASSIFIERS, "logistic-regression", "resnet18")]
    return [*detectors, Cell("raccoon-25", "detr-small", 3, 0), *classifiers]


def missing(cell: Cell) -> str:
    """What this machine or this version has not; empty where the cell can run."""
    recipe = WAYS[cell.way].recipe
    if recipe and recipe not in shipped_recipes():
        return f"there is no recipe {recipe}"
    if cell.way == "yolo" and shutil.which("yolo") is None:
        return "`yolo` is not installed"
    return ""


def address_of(cell: Cell, photos: Path, folder: Path, *, smoke: bool) -> str:
    """The data address; subsets are laid out in `folder`."""
    if cell.data == "signdigits":
        return f"folder:{tiny_classes(photos / cell.data, folder / cell.data) if smoke else photos / cell.data}"
    name, _, number = cell.data.partition("-")
    if smoke:
        return f"voc:{voc_subset(photos / name, folder / name, 6, held_out=3)}"
    return f"voc:{voc_subset(photos / name, folder / name, int(number)) if number else photos / name}"


def tuned(cell: Cell, kept: Mapping[str, dict[str, Any]]) -> str:
    """What a peer's cell changes: what it tries, or what was best on its data set; empty where nothing was tried."""
    tried = {
        change: kept.get(cell._replace(minutes=3, seed=0, change=change).key) for change in TUNING.get(cell.way, ())
    }
    best = {change: one.get("ap", one.get("accuracy")) for change, one in tried.items() if one is not None}
    return cell.change or max(best, key=lambda change: best[change], default="")


def command_of(cell: Cell, change: str, address: str, folder: Path, *, smoke: bool) -> list[str]:
    """What is started. It leaves its figures in `folder`."""
    way, python = WAYS[cell.way], [sys.executable]
    if way.recipe is None:
        script = "photograph_yolo.py" if cell.way == "yolo" else "photograph_peers.py"
        given = [cell.way, address, str(cell.minutes), str(cell.seed), str(folder / "figures.json")]
        given += ["--change", *change.split()] if change else []
        return [*python, str(HERE / script), *given, *(["--smoke"] if smoke else [])]
    budget = [f"train.max_minutes={round(cell.minutes - way.after / 60, 3)}"] if way.recipe else []
    settings = [*budget, f"seed={cell.seed}", *way.settings]
    settings += way.on.get(cell.data.partition("-")[0], ())
    if way.stores_features:
        settings.append(f"features.folder={folder / 'features'}")
    if cell.data == "signdigits":
        settings += ["data.val_fraction=0.2", "data.split_seed=0"]
    if smoke:
        settings += ["train.max_steps=2", "train.batch_size=4"]
        settings += ["model.img_size=56"] if cell.data == "signdigits" else ["data.shortest=84", "data.longest=112"]
        settings += ["features.views=1"] if cell.way == "detr-photos" else []
    words = [word for setting in settings for word in ("--set", setting)]
    named = [way.recipe] if way.recipe else ["--minutes", str(cell.minutes)]
    return [*python, "-m", "regard", "train", *named, "--data", address, "--out", str(folder / "run"), *words]


def run(
    cell: Cell, change: str, photos: Path, lock: int, *, smoke: bool = False, keep_run: Path | None = None
) -> dict[str, Any]:
    """Trains one cell, and returns its record. RuntimeError, with the last lines that it said, where it fails."""
    with tempfile.TemporaryDirectory(prefix="photographs-") as temporary:
        folder = Path(temporary)
        address = address_of(cell, photos, folder, smoke=smoke)
        command, log = command_of(cell, change, address, folder, smoke=smoke), folder / "log"
        start = time.monotonic()
        # A group of its own, so that all of it can be ended.
        options: dict[str, Any] = {"pass_fds": [lock], "start_new_session": True}
        if WAYS[cell.way].recipe == "":  # whose store is that of the user
            options["env"] = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
        with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, **options) as process:
            try:
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        wall = time.monotonic() - start
        if process.returncode:
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:]
            raise RuntimeError(f"exit status {process.returncode}: " + "\n    ".join(said))
        is_ours = WAYS[cell.way].recipe is not None
        found = of_run(folder / "run", cell.data) if is_ours else read_json(folder / "figures.json")
        if keep_run is not None and (folder / "run").is_dir():
            kept_run = keep_run / cell.key.replace(", ", "-").replace(" ", "-")
            shutil.rmtree(kept_run, ignore_errors=True)  # of an earlier version
            shutil.copytree(folder / "run", kept_run)
    own: dict[str, Any] = {"data": cell.data, "way": cell.way, "minutes": cell.minutes, "seed": cell.seed}
    if cell.data.startswith("raccoon-"):
        own["subset_seed"] = SUBSET_SEED
    if WAYS[cell.way].recipe is None:
        own |= {"change": change, "tried": cell.change}
    own |= {"wall_seconds": round(wall, 1), "peak_memory_mb": round(usage.ru_maxrss / 2**10)}
    now = {"date": datetime.now(UTC).date().isoformat(), "commit": _commit()}
    return {**own, **found, **now, "versions": versions(("regard", "torch", "torchvision", *PACKAGES))}


def of_run(path: Path, data: str) -> dict[str, Any]:
    """What a run's summary.json and recipe.toml say; of the recipe all but where things lie on this machine."""
    summary, recipe = read_json(path / "summary.json"), Run.open(path).recipe().to_dict()
    recipe["data"]["address"] = f"{recipe['data']['address'].partition(':')[0]}:{data}"
    recipe.get("features", {}).pop("folder", None)
    model = recipe["model"]
    began = model.get("weights") or model.get("pretrained_backbone") or "random weights"
    left_out = ("per_class", "versions", "machine", "checksum", "processes", "peak_memory_mb", "seconds", "seed")
    found = {key: value for key, value in summary.items() if key not in left_out}
    calibration = read_json(path / "metadata.json").get("calibration")
    own = {} if calibration is None else {"calibration": calibration, "nms": calibration.get("nms")}
    if (path / "race.json").exists():
        race = read_json(path / "race.json")
        scores = {name: {key: one[key] for key in ("steps", "score")} for name, one in race["candidates"].items()}
        own["race"] = {"winner": race["winner"], "candidates": scores}
    return {**found, **own, "counted_seconds": summary["seconds"], "began": began, "recipe": recipe}


def _commit() -> str:
    """The commit that is measured; with + where files differ from it."""
    git = ["git", "-C", str(HERE)]
    found = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain", "-uno", "--", "../src", "."], capture_output=True).stdout
    return f"{found}+" if changed else found


class Kept:
    """The results file. While a cell runs, its lock is held, also by the cell itself should this process be killed."""

    def __init__(self, file: Path) -> None:
        self.file = file
        named = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:12]
        self._lock = Path(tempfile.gettempdir()) / f"photographs-{named}.lock"

    def cells(self) -> dict[str, dict[str, Any]]:
        return read_json(self.file)["results"] if self.file.exists() else {}

    def add(self, cell: Cell, record: dict[str, Any]) -> None:
        save(NAME, {**self.cells(), cell.key: record}, PACKAGES, path=self.file)

    @contextmanager
    def locked(self, say: Callable[[str], object]) -> Iterator[int]:
        """Waits for its turn; gives the lock's file descriptor."""
        with self._lock.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("waiting: another call runs a cell")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock.fileno()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = ["tuning", "raccoon", "bccd", "images", "signdigits", "chosen"]
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(known)}; all unless given")
    parser.add_argument("--photos", type=expanded, default=PHOTOS, help="the folder of the data sets (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="of Regard's own recipes")
    parser.add_argument("--peer-seeds", type=int, default=1)
    parser.add_argument("--only", nargs="+", metavar="WORD", help="cells whose name holds all these words")
    parser.add_argument("--again", action="store_true", help="also those that are kept, each once; for a new version")
    parser.add_argument("--list", action="store_true", help="the cells, what they reached, and the hours left")
    parser.add_argument("--smoke", action="store_true", help="two steps of every kind of cell; nothing is measured")
    parser.add_argument("--results", type=expanded, help="another results file")
    parser.add_argument("--runs", type=expanded, metavar="FOLDER", help="keep the run folders here")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(known):
        parser.error(f"unknown part {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    chosen = smoke_cells() if given.smoke else cells(given.parts or known, given.seeds, given.peer_seeds)
    chosen = [cell for cell in chosen if all(word in f"{cell.key}," for word in given.only or ())]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that its cell ends with it
    with tempfile.TemporaryDirectory() as temporary:
        file = given.results or (Path(temporary) / f"{NAME}.json" if given.smoke else result_path(NAME))
        kept = Kept(file)
        if given.list:
            show(chosen, kept.cells())
            return
        failed = work(chosen, kept, given.photos, smoke=given.smoke, again=given.again, runs=given.runs)
    raise SystemExit(f"{failed} of {len(chosen)} cells failed" if failed else None)


def work(
    chosen: Sequence[Cell], kept: Kept, photos: Path, *, smoke: bool, again: bool = False, runs: Path | None = None
) -> int:
    """Runs the cells that are not kept yet. Returns how many failed."""
    failed = 0
    for cell in chosen:
        if reason := missing(cell):
            print(f"{cell.key}: left out, {reason}", flush=True)
            continue
        if not (photos / cell.data.partition("-")[0]).is_dir():
            raise SystemExit(f"{photos / cell.data.partition('-')[0]}: there is no such folder; name it with --photos")
        with kept.locked(lambda what: print(what, flush=True)) as lock:
            if cell.key in kept.cells() and not again:
                print(f"{cell.key}: kept", flush=True)
                continue
            try:
                record = run(cell, tuned(cell, kept.cells()), photos, lock, smoke=smoke, keep_run=runs)
            except RuntimeError as error:
                failed += 1
                print(f"{cell.key}: failed, {error}", flush=True)
                continue
            kept.add(cell, record)
        print(f"{cell.key}: {told(record)}", flush=True)
    return failed


def told(record: dict[str, Any]) -> str:
    figures = [f"{name} {record[name]:.3f}" for name in ("ap", "ap50", "accuracy") if name in record]
    seconds = record["wall_seconds"] - 60 * record["minutes"]
    over = f" ({seconds:.0f} s too many)" if seconds > 1 else ""
    return f"{', '.join(figures)} in {record['wall_seconds']:.0f} s{over}, {record['peak_memory_mb']:,} MB"


def show(chosen: Sequence[Cell], kept: dict[str, dict[str, Any]]) -> None:
    """Every cell with what it reached, or why it cannot run; and the hours of those that are left."""
    left = []
    for cell in chosen:
        state = told(kept[cell.key]) if cell.key in kept else missing(cell) or "to do"
        if state == "to do":
            left.append(cell.minutes)
        print(f"{cell.key}: {state}")
    print(f"{len(left)} of {len(chosen)} cells to do: {sum(left) / 60:.1f} hours")


if __name__ == "__main__":
    main()
