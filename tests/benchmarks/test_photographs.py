"""benchmarks/photographs.py: which cells there are, that each is run once and kept, and what peers are measured by."""

import fcntl
import json
import os
import resource
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
EVERY = ["tuning", "raccoon", "bccd", "images", "signdigits"]
RECORD = {"ap": 0.5, "ap50": 0.75, "minutes": 3, "wall_seconds": 190.0, "peak_memory_mb": 1234}


def started(*words: object) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own, with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=BENCHMARKS, env=environment, capture_output=True, text=True)


# ---------------------------------------------------------------------------------------------------------- the cells


def test_every_cell_is_there_once(scripts):
    script = scripts.photographs
    found = script.cells(EVERY, seeds=3, peer_seeds=1)
    assert len({cell.key for cell in found}) == len(found)
    detection = 2 * 3 * (3 * len(script.DETECTORS) + len(script.PEERS))  # sets × minutes × (seeds × ours + peers)
    signdigits = 2 * (3 * 2 + 1) + 1
    tuning = sum(len(changes) * (1 if way == "resnet18" else 2) for way, changes in script.TUNING.items())
    assert len(found) == tuning + detection + 3 * 3 + signdigits  # 160 raccoons are the part `raccoon` itself
    assert [cell.change for cell in found[:tuning]] == [cell.change for cell in found if cell.change]
    assert all(cell.seed == 0 for cell in found if cell.way in script.PEERS)


def test_the_part_of_images_holds_all_raccoons_too(scripts):
    found = scripts.photographs.cells(["images"], seeds=2, peer_seeds=1)
    assert {(cell.data, cell.way, cell.minutes) for cell in found} == {
        (data, "detr-photos", 10) for data in ("raccoon", "raccoon-25", "raccoon-50", "raccoon-100")
    }
    assert len(found) == 8


def test_ours_is_the_real_command_line(scripts, tmp_path):
    script = scripts.photographs
    cell = script.Cell("raccoon", "detr-small", 10, 2)
    command = script.command_of(cell, "", "voc:somewhere", tmp_path, smoke=False)
    assert command[1:] == [
        *("-m", "regard", "train", "detr-small", "--data", "voc:somewhere", "--out", str(tmp_path / "run")),
        *("--set", f"train.max_minutes={round(10 - script.WAYS['detr-small'].after / 60, 3)}"),
        *("--set", "seed=2", "--set", "augment.colour=0.3", "--set", "data.shortest=288", "--set", "data.longest=384"),
    ]


def test_a_recipe_may_be_left_to_the_package(scripts, tmp_path):
    script = scripts.photographs
    command = script.command_of(script.Cell("raccoon", "chosen", 10, 1), "", "voc:here", tmp_path, smoke=False)
    assert command[1:] == [
        *("-m", "regard", "train", "--minutes", "10", "--data", "voc:here", "--out", str(tmp_path / "run")),
        *("--set", "seed=1"),
    ]


def test_a_peer_takes_the_setting_that_was_best_on_its_data(scripts, tmp_path):
    script = scripts.photographs
    first, second = script.TUNING["ssdlite"][:2]
    tries = [script.Cell("bccd", "ssdlite", 3, 0, change) for change in (first, second)]
    kept = {tries[0].key: {"ap": 0.1}, tries[1].key: {"ap": 0.2}}
    assert script.tuned(script.Cell("bccd", "ssdlite", 10, 1), kept) == second
    assert script.tuned(script.Cell("raccoon", "ssdlite", 10, 1), kept) == ""  # nothing was tried there
    assert script.tuned(tries[0], kept) == first  # a try is what it tries
    command = script.command_of(tries[0], first, "voc:x", tmp_path, smoke=False)
    assert command[-2:] == ["--change", *first.split()]


def test_a_smaller_subset_is_part_of_a_larger_one(scripts, photos, tmp_path):
    lists = {}
    for number in (3, 5):
        folder = scripts.photograph_data.voc_subset(photos / "raccoon", tmp_path / str(number), number)
        lists[number] = (folder / "ImageSets" / "Main" / "train.txt").read_text().split()
        assert (folder / "ImageSets" / "Main" / "val.txt").read_text().split() == [
            f"image-{n:02}" for n in range(8, 12)
        ]
    assert len(lists[3]) == 3
    assert len(lists[5]) == 5
    assert set(lists[3]) < set(lists[5])
    assert lists[5] != [f"image-{n:02}" for n in range(5)]  # drawn, not the first


# ------------------------------------------------------------------------------------------------- kept, and gone on


def test_a_finished_cell_is_kept_and_a_failed_one_is_begun_anew(scripts, photos, tmp_path, monkeypatch, capsys):
    script = scripts.photographs
    chosen = [script.Cell("bccd", "detr-small", 3, seed) for seed in range(3)]
    kept, ran = script.Kept(tmp_path / "results.json"), []

    def run(cell, change, folder, lock, *, smoke, keep_run):
        ran.append(cell.seed)
        if cell.seed == 1 and ran.count(1) == 1:
            raise RuntimeError("exit status 1: it broke")
        return RECORD | {"seed": cell.seed}

    monkeypatch.setattr(script, "run", run)
    assert script.work(chosen, kept, photos, smoke=False) == 1
    assert "failed, exit status 1: it broke" in capsys.readouterr().out
    assert ran == [0, 1, 2]
    assert script.work(chosen, kept, photos, smoke=False) == 0
    assert ran == [0, 1, 2, 1]
    assert kept.cells() == {cell.key: RECORD | {"seed": cell.seed} for cell in chosen}
    assert script.work(chosen[:1], kept, photos, smoke=False, again=True) == 0
    assert ran == [0, 1, 2, 1, 0]
    record = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert {"machine", "versions", "date", "results"} == record.keys()
    script.show([chosen[0], script.Cell("bccd", "detr-small", 5, 0)], kept.cells())
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "bccd, detr-small, 3 min, seed 0: ap 0.500, ap50 0.750 in 190 s (10 s too many), 1,234 MB",
        "bccd, detr-small, 5 min, seed 0: to do",
        "1 of 2 cells to do: 0.1 hours",
    ]


def test_a_cell_holds_the_lock_even_where_its_script_was_killed(scripts, tmp_path):
    kept = scripts.photographs.Kept(tmp_path / "results.json")

    def is_free() -> bool:
        with kept._lock.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    with kept.locked(print) as lock:
        assert not is_free()
        cell = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[lock])
    assert not is_free()  # as when this process were gone
    cell.communicate()
    assert is_free()
    kept._lock.unlink()


CELL = """
import json, sys
memory = bytearray({megabytes} << 20)
print("it says something")
json.dump({{"ap": 0.25}}, open(sys.argv[1], "w"))
sys.exit({status!r})
"""


def cell_run(script, photos, folder, monkeypatch, *, status, megabytes=1):
    """A peer's cell whose process does nothing but take memory and end."""
    code = CELL.format(status=status, megabytes=megabytes)
    cell = script.Cell("bccd", "faster-rcnn", 3, 0)
    monkeypatch.setattr(
        script, "command_of", lambda *_, smoke: [sys.executable, "-c", code, str(_[3] / "figures.json")]
    )
    with script.Kept(folder / "results.json").locked(print) as lock:
        return script.run(cell, "lr=1e-3", photos, lock)


def test_a_record_has_what_its_process_took_and_left(scripts, photos, tmp_path, monkeypatch):
    before = time.monotonic()
    record = cell_run(scripts.photographs, photos, tmp_path, monkeypatch, status=None, megabytes=1200)
    assert record["ap"] == 0.25
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # a new process begins as large as this one
    assert 1200 <= record["peak_memory_mb"] < 2400 + own
    assert 0 < record["wall_seconds"] <= time.monotonic() - before + 0.1
    assert (record["data"], record["way"], record["minutes"], record["seed"]) == ("bccd", "faster-rcnn", 3, 0)
    assert (record["change"], record["tried"]) == ("lr=1e-3", "")
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0]


def test_what_fails_says_so_and_leaves_nothing(scripts, photos, tmp_path, monkeypatch):
    with pytest.raises(RuntimeError) as error:
        cell_run(scripts.photographs, photos, tmp_path, monkeypatch, status="it broke")
    assert str(error.value) == "exit status 1: it says something\n    it broke"
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------ peers' figures


class Echo(nn.Module):
    """Takes torchvision's place: what it is to learn is what it finds."""

    def forward(self, images, targets=None):
        if targets is not None:
            self.targets = targets
            return {"one": torch.ones((), dtype=torch.bfloat16), "two": torch.tensor(2.0)}
        return [{**target, "scores": torch.ones(len(target["labels"]))} for target in self.targets]


@pytest.mark.parametrize("pixels", [1, 16])
def test_boxes_reach_torchvision_in_pixels_and_come_back_as_fractions(scripts, pixels):
    model = scripts.photograph_models.OfTorchvision(Echo(), pixels=pixels)
    images = [torch.zeros(3, 20, 50), torch.zeros(3, 30, 10)]
    boxes = [torch.tensor([[0.5, 0.5, 0.2, 0.4]]), torch.tensor([[0.3, 0.25, 0.2, 0.5], [0.5, 0.5, 1.0, 1.0]])]
    labels = [torch.tensor([0]), torch.tensor([1, 2])]
    assert model.loss(images, labels, boxes) == 3
    assert model.model.targets[0]["boxes"].tolist() == [pytest.approx([pixels * x for x in (20, 6, 30, 14)])]
    assert model.model.targets[1]["labels"].tolist() == [2, 3]  # 0 is the background
    found = model.detect(images)
    assert found[0][0].tolist() == [pytest.approx([0.4, 0.3, 0.6, 0.7])]
    assert found[1][1].tolist() == [1, 2]


def test_a_frozen_backbone_keeps_its_norms_while_the_rest_trains(scripts):
    body, head = nn.Sequential(nn.BatchNorm2d(3)), nn.BatchNorm2d(3)
    model = scripts.photograph_models.OfTorchvision(nn.ModuleDict({"body": body, "head": head}), kept_norms=body)
    model.train()
    assert not body[0].training
    assert head.training


@pytest.mark.slow  # transformers takes seconds to import
def test_suppressed_and_raw_boxes_of_rt_detr(scripts):
    """Two boxes of one class that nearly cover each other, and one of another class."""
    pytest.importorskip("transformers")
    found = scripts.detection_small.Found(
        torch.tensor([[[[4.0, -9.0], [3.0, -9.0], [-9.0, 2.0]]]]),
        torch.tensor([[[[0.5, 0.5, 0.4, 0.4], [0.51, 0.5, 0.4, 0.4], [0.5, 0.5, 0.4, 0.4]]]]),
    )
    rt_detr = scripts.photograph_models.SquareRTDETR
    model = rt_detr.__new__(rt_detr)
    nn.Module.__init__(model)
    model.num_classes, model.side, model.detector = 2, 8, lambda images: found
    boxes, labels, scores = model.detect([torch.zeros(3, 6, 9)])[0]
    kept = scores > 0.5
    assert labels[kept].tolist() == [0, 1]
    assert boxes[0].tolist() == pytest.approx([0.3, 0.3, 0.7, 0.7])
    _, labels, scores = model.detect([torch.zeros(3, 6, 9)], iou=None)[0]
    assert labels[scores > 0.5].tolist() == [0, 0, 1]


YOLO = """#!{python}
import pathlib, sys
mode, given = sys.argv[2], dict(word.split("=", 1) for word in sys.argv[3:])
folder = pathlib.Path(given["project"]) / given["name"]
if mode == "train":
    assert given["pretrained"] == "False" and given["model"].endswith(".yaml"), given
    assert 0 < float(given["time"]) < 0.05, given
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "last.pt").touch()
    (folder / "results.csv").write_text("epoch, time\\n1, 2.0\\n2, 4.0\\n")
else:
    assert pathlib.Path(given["model"]).exists()
    (folder / "labels").mkdir(parents=True)
    for image in sorted(pathlib.Path(given["source"]).iterdir())[{left_out}:]:
        truth = image.parents[2] / "labels" / "val" / (image.stem + ".txt")
        lines = [line + " 0.9\\n" for line in truth.read_text().splitlines()]
        (folder / "labels" / truth.name).write_text("".join(lines))
"""


@pytest.mark.parametrize(("left_out", "ap50"), [(0, 1.0), (2, 0.5)])
def test_a_yolo_of_ultralytics_is_a_program_of_its_own(scripts, photos, tmp_path, monkeypatch, left_out, ap50):
    """One that finds exactly what is there, in all held-out images or in the last two of four (one of each class)."""
    program = tmp_path / "yolo"
    program.write_text(YOLO.format(python=sys.executable, left_out=left_out), encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    script = scripts.photograph_yolo
    data = script.open_detection(f"voc:{photos / 'bccd'}")
    (tmp_path / "data").mkdir()
    found = script.train(data, tmp_path / "data", script.time.monotonic() + 180, 0, smoke=False)
    assert found["ap50"] == pytest.approx(ap50, abs=0.01)
    assert found["ap"] == pytest.approx(ap50, abs=0.01)
    assert found["steps"] == 2
    assert found["images_per_second"] == 4.0
    assert "ultralytics" not in sys.modules
    assert "import ultralytics" not in (BENCHMARKS / "photograph_yolo.py").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------------------ trainings

PEERS = """
import json, sys, time, warnings
from pathlib import Path
import photograph_classifiers, photograph_peers as script
from photograph_data import tiny_classes, voc_subset
warnings.simplefilter("ignore")
photos, folder = map(Path, sys.argv[1:])
small, far = {"shortest": 96, "longest": 128, "batch_size": 2}, time.monotonic() + 1e4
found = {}
for name in script.peers():
    address = f"voc:{voc_subset(photos / 'bccd', folder / name, 4, held_out=2)}"
    found[name] = script.detection(name, address, far, 0, 2, small)
address = f"folder:{photos / 'signdigits'}"
found["resnet18"] = photograph_classifiers.resnet18(address, far, 0, 2, {"side": 32}, script.train)
print(json.dumps(found))
"""


@pytest.mark.slow
def test_every_peer_trains_and_is_measured(photos, tmp_path):
    """All in one process, which is much faster; photographs.py gives each its own."""
    pytest.importorskip("transformers")
    done = started("-c", PEERS, photos, tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 7
    for name, record in found.items():
        assert record["steps"] == 2
        assert record["diverged"] is None
        assert record["images_per_second"] > 0
        assert record["began"]
        if name == "resnet18":
            assert 0 <= record["accuracy"] <= 1
            continue
        assert 0 <= record["ap"] <= record["ap50"] <= 1
        assert ("ap_raw" in record) == name.startswith("rt-detr")
    assert found["faster-rcnn-dinov2"]["views"] == 1


@pytest.mark.slow
def test_a_smoke_run_keeps_its_cells(photos, tmp_path):
    """One of ours and a peer, each by the command that a measurement starts; the second call finds them kept."""
    results = tmp_path / "results.json"
    command = ["photographs.py", "--smoke", "--photos", photos, "--results", results]
    only = ["--only", "raccoon-25, detr-small,"]
    done = started(*command, *only)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(results.read_text(encoding="utf-8"))["results"]["raccoon-25, detr-small, 3 min, seed 0"]
    assert record["steps"] == 2
    assert record["began"] == "random weights"
    assert record["peak_memory_mb"] > 100
    assert record["wall_seconds"] > record["counted_seconds"]
    assert 0 <= record["ap"] <= record["ap50"] <= 1
    assert record["recipe"]["train"]["max_minutes"] < 3
    assert done.stdout.startswith("raccoon-25, detr-small, 3 min, seed 0: ap 0.")
    assert started(*command, *only).stdout == "raccoon-25, detr-small, 3 min, seed 0: kept\n"


@pytest.mark.slow
def test_logistic_regression_learns_from_the_same_features(photos, tmp_path):
    file = tmp_path / "figures.json"
    words = ("logistic-regression", f"folder:{photos / 'signdigits'}", 3, 0, file, "--smoke")
    done = started("photograph_peers.py", *words)
    assert done.returncode == 0, done.stderr
    record = json.loads(file.read_text(encoding="utf-8"))
    assert 0 <= record["accuracy"] <= 1
    assert record["C"] > 0
    assert "dinov2" in record["began"]
