"""Pre-training from the first image to weights that a classifier takes: each method learns, resumes, and is shared."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import regard
from regard.errors import RegardError
from regard.recipes import Recipe, load_recipe
from regard.tasks import create_task
from regard.training import Run, train
from regard.training.metrics_log import MetricsLog

RECIPE = """
task = "pretraining"

[model]
name = "vit_tiny_patch16_224"
img_size = 12
patch_size = 4
in_chans = 1
embed_dim = 20
depth = 2
num_heads = 2

[data]
address = "digits"

[train]
max_steps = 6
batch_size = 12
lr = 5e-3
device = "cpu"
evaluate_every_steps = 1000
save_every_steps = 1000
"""
TEACHER = (
    *("model.img_size=8", "model.patch_size=2", "model.depth=1", "model.embed_dim=16", "model.num_heads=2"),
    *("train.device=cpu", "train.batch_size=32", "augment.shift=0"),
)
METHODS = ("distill", "mae", "simmim", "self")


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """80 of scikit-learn's digits as files of 16 × 16 pixels, in the folders of their classes."""
    from sklearn.datasets import load_digits

    folder, found = tmp_path_factory.mktemp("digits"), load_digits()
    for number in range(80):
        pixels = np.kron(np.rint(found.images[number] * (255 / 16)).astype(np.uint8), np.ones((2, 2), np.uint8))
        (folder / str(found.target[number])).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / str(found.target[number]) / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def teacher(digits, tmp_path_factory) -> Path:
    """A run that knows the ten digits a little, on a grid of 4 × 4 patches; its students' have 3 × 3."""
    run = tmp_path_factory.mktemp("teacher") / "run"
    settings = [*TEACHER, "train.max_steps=60", "train.lr=5e-3", "train.evaluate_every=1000"]
    train(load_recipe("vit-digits", settings, address=f"folder:{digits}"), run)
    return run


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@pytest.fixture
def settings(digits, teacher, tmp_path) -> Callable[..., list[str]]:
    """settings(method, *more) -> those that make the tiny recipe one of this method."""

    def of(method: str, *more: str) -> list[str]:
        own = [f"data.address=folder:{digits}"]
        if method == "self":
            own += ["pretrain.teacher=self", "pretrain.momentum=0.9"]
        elif method == "distill":
            own += [f"pretrain.teacher={teacher}", f"features.folder={tmp_path / 'store'}", "features.views=2"]
            own += ["augment.crop_scale=0.5", "augment.rotation=20", "augment.colour=0.2"]
        else:
            own += [f"pretrain.method={method}"]
        return [*own, *more]

    return of


@pytest.fixture
def recipe(file, settings) -> Callable[..., Recipe]:
    return lambda method, *more: load_recipe(str(file), settings(method, *more))


def losses(run: Path, kind: str = "train") -> list[float]:
    return [record["loss"] for record in Run(run).history() if record["kind"] == kind]


# Learning


@pytest.mark.parametrize("method", METHODS)
def test_each_method_learns(method, recipe, tmp_path):
    summary = train(recipe(method, "train.max_steps=60", "train.evaluate_every_steps=20"), tmp_path / "run")
    found = losses(tmp_path / "run")
    assert np.mean(found[-5:]) < 0.9 * np.mean(found[:5])
    held_out = losses(tmp_path / "run", "val")
    assert len(held_out) == 3
    assert summary["best"] == {"loss": min(held_out), "step": 20 * (1 + held_out.index(min(held_out)))}
    assert summary["views"] == (2 if method == "distill" else 1)
    assert 0.3 < summary["linear"] <= 1
    assert 0.1 < summary["knn"] <= 1
    assert ("accuracy" in summary) == (method == "distill")
    classes = Run(tmp_path / "run").metadata()["class_names"]
    assert classes == ([str(number) for number in range(10)] if method == "distill" else [])


def test_a_student_knows_its_teachers_classes_and_predicts_them(recipe, teacher, digits, tmp_path):
    more = ("train.max_steps=150", "features.views=1", "augment.crop_scale=1", "augment.rotation=0", "train.lr=1e-2")
    summary = train(recipe("distill", *more), tmp_path / "run")
    student, known = regard.load(tmp_path / "run"), regard.load(teacher)
    assert student.class_names == known.class_names
    files = sorted(digits.glob("*/*.png"))
    same = sum(a.label == b.label for a, b in zip(student.predict(files), known.predict(files), strict=True))
    assert same > 0.6 * len(files)
    assert summary["accuracy"] > 0.3
    held_out = create_task(Run(tmp_path / "run").recipe()).data.val
    right = [
        student.predict(held_out.read(index)).label == str(held_out.labels[index]) for index in range(len(held_out))
    ]
    assert summary["accuracy"] == pytest.approx(np.mean(right))


def test_other_classes_than_the_teachers_have_no_accuracy(recipe, tmp_path, digits):
    renamed = tmp_path / "renamed"
    for path in sorted(digits.glob("*/*.png"))[::3]:
        (renamed / f"digit-{path.parent.name}").mkdir(parents=True, exist_ok=True)
        (renamed / f"digit-{path.parent.name}" / path.name).write_bytes(path.read_bytes())
    summary = train(recipe("distill", f"data.address=folder:{renamed}", "train.max_steps=2"), tmp_path / "run")
    assert "accuracy" not in summary
    assert {"knn", "linear", "loss"} <= summary.keys()
    assert len(Run(tmp_path / "run").metadata()["class_names"]) == 10


@pytest.mark.parametrize("method", METHODS)
def test_images_without_labels_are_enough(method, recipe, digits, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in sorted(digits.glob("*/*.png"))[::2]:
        (flat / path.name).write_bytes(path.read_bytes())
    summary = train(recipe(method, f"data.address=folder:{flat}", "train.max_steps=3"), tmp_path / "run")
    assert np.isfinite(summary["loss"])
    assert not {"knn", "linear", "accuracy"} & summary.keys()


def test_a_network_of_stages_learns_from_a_teacher(settings, tmp_path):
    small = 'name = "sasa_resnet26"\ndepths = [1, 1]\nimg_size = 16\nembed_dim = 8\nstem = "small"\nwindow = 3\n'
    text = RECIPE.replace('name = "vit_tiny_patch16_224"\nimg_size = 12\npatch_size = 4\n', small)
    file = tmp_path / "stages.toml"
    file.write_text(text.replace("embed_dim = 20\ndepth = 2\n", ""), encoding="utf-8")
    summary = train(load_recipe(str(file), settings("distill", "train.max_steps=20")), tmp_path / "run")
    found = losses(tmp_path / "run")
    assert np.mean(found[-4:]) < np.mean(found[:4])
    assert summary["linear"] > 0.2


@pytest.mark.parametrize("method", METHODS)
def test_a_classifier_of_other_classes_and_another_size_begins_with_the_weights(method, recipe, digits, tmp_path):
    train(recipe(method, "train.max_steps=2"), tmp_path / "run")
    few = tmp_path / "few"
    for path in [path for path in sorted(digits.glob("*/*.png")) if path.parent.name in "357"]:
        (few / path.parent.name).mkdir(parents=True, exist_ok=True)
        (few / path.parent.name / path.name).write_bytes(path.read_bytes())
    own = [f"model.weights={tmp_path / 'run'}", "train.max_steps=1", "train.lr=1e-9", "train.device=cpu"]
    shape = ["model.name=vit_tiny_patch16_224", "model.patch_size=4", "model.embed_dim=20", "model.depth=2"]
    shape += ["model.num_heads=2", "model.img_size=20", "model.in_chans=1", "model.mixer_options={}"]
    reset = [] if method != "distill" else ["model.reset_head=true"]  # the teacher's classes are left
    train(load_recipe("vit-digits", [*own, *shape, *reset], address=f"folder:{few}"), tmp_path / "classifier")
    begun, found = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "classifier"))
    assert found["head.weight"].shape == (3, 20)
    assert found["pos_embed.table"].shape != begun["pos_embed.table"].shape
    kept = [name for name in begun if not name.startswith(("head.", "pos_embed."))]
    assert len(kept) > 20
    for name in kept:
        torch.testing.assert_close(found[name], begun[name], rtol=0, atol=1e-6)


def test_a_run_can_go_on_from_weights_and_says_whether_it_paid(recipe, tmp_path, caplog):
    train(recipe("simmim", "train.max_steps=2"), tmp_path / "first")
    told = train(recipe("mae", f"pretrain.start={tmp_path / 'first'}", "train.max_steps=3"), tmp_path / "second")
    assert told["steps"] == 3
    metadata = Run(tmp_path / "second").metadata()
    assert metadata["paid"]["verdict"] in ("cannot be told", "paid", "did harm")
    assert metadata["pretraining"] == {"method": "mae", "teacher": None, "start": str(tmp_path / "first")}
    begun = create_task(Run(tmp_path / "second").recipe()).build_model().vit.state_dict()
    wanted = load_file(tmp_path / "first" / "model.safetensors")
    assert all(torch.equal(begun[name], tensor) for name, tensor in wanted.items())


# Resuming and sharing


class Stop(Exception):  # noqa: N818 - it stands for a kill
    pass


RESUMED = ("train.max_steps=7", "train.save_every_steps=3", "train.accumulate=2", "model.drop_path=0.3")


@pytest.mark.parametrize("ema", ["train.ema_decay=0.8", pytest.param("train.ema_decay=0", marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_ends_with_the_same_weights_to_the_bit(method, ema, recipe, tmp_path, monkeypatch, compare_runs):
    train(recipe(method, *RESUMED, ema), tmp_path / "never")
    write = MetricsLog.write

    def stop(self, kind, at, epoch, **figures):
        if at == 5:
            raise Stop
        write(self, kind, at, epoch, **figures)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "write", stop)
        with pytest.raises(Stop):
            train(recipe(method, *RESUMED, ema), tmp_path / "cut")
    assert (tmp_path / "cut" / "state" / "latest").read_text(encoding="utf-8").strip() == "step-3"
    train(Run(tmp_path / "cut").recipe(), tmp_path / "cut", resume=True)
    compare_runs(tmp_path / "never", tmp_path / "cut")


def test_accumulated_micro_batches_train_as_one_batch(recipe, tmp_path):
    """Also by the moving average, which follows once a step."""
    for name, accumulate in (("one", 1), ("three", 3)):
        # The bias of keys has a gradient of zero but for rounding, which AdamW would make large.
        same = (f"train.accumulate={accumulate}", "train.max_steps=4", "model.mixer_options.qkv_bias=false")
        train(recipe("self", *same), tmp_path / name)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "three"))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-4)


TRAINS = """
import sys
from pathlib import Path
from regard.recipes import load_recipe
from regard.training import train

file, folder, *settings = sys.argv[1:]
train(load_recipe(file, settings), Path(folder))
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_train_what_one_does(method, recipe, file, settings, command, tmp_path):
    """To 1e-3: sums in another order, which AdamW's first steps enlarge."""
    same = ("model.mixer_options.qkv_bias=false", "train.max_steps=5")  # that of keys has a gradient of rounding alone
    script, how = tmp_path / "trains.py", command()
    script.write_text(TRAINS, encoding="utf-8")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script), str(file)]
    how["args"] = [sys.executable, *launch, str(tmp_path / "two"), *settings(method, *same)]
    how["env"] |= {"ACCELERATE_USE_CPU": "true"}
    finished = subprocess.run(**how, capture_output=True, check=False)
    assert finished.returncode == 0, finished.stderr
    train(recipe(method, *same), tmp_path / "one")
    assert Run(tmp_path / "two").summary()["processes"] == 2
    for ours, theirs in zip(Run(tmp_path / "two").history(), Run(tmp_path / "one").history(), strict=True):
        assert ours.pop("kind") == theirs.pop("kind")
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "one"))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-3)


# What is not as it was


def test_a_teacher_that_was_changed_meanwhile_is_an_error(recipe, teacher, tmp_path):
    copy = tmp_path / "teacher"
    copy.mkdir()
    for name in ("metadata.json", "model.safetensors"):
        (copy / name).write_bytes((teacher / name).read_bytes())
    train(recipe("distill", f"pretrain.teacher={copy}", "train.max_steps=2"), tmp_path / "run")
    weights = load_file(copy / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, copy / "model.safetensors")
    with pytest.raises(RegardError, match=r"pretrain\.teacher: .* is not what it was when the run began") as error:
        train(Run(tmp_path / "run").recipe(), tmp_path / "run", resume=True)
    assert "\n" not in str(error.value)
    assert "bring that back, or begin a new run without pretrain.teacher_hash" in str(error.value)


@pytest.mark.parametrize("method", METHODS)
def test_images_that_cannot_be_read_are_left_out_and_counted(method, recipe, digits, tmp_path):
    damaged = tmp_path / "damaged"
    broken = {7, 31, 44, 70}
    for number, path in enumerate(sorted(digits.glob("*/*.png"))):
        target = damaged / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes()
        target.write_bytes(data[:50] if number in broken else data)  # its header can be read
    address = f"data.address=folder:{damaged}"
    with pytest.raises(RegardError, match=r"\.png"):
        train(recipe(method, address), tmp_path / "stopped")
    summary = train(recipe(method, address, "data.on_bad_image=skip", "train.max_steps=12"), tmp_path / "run")
    assert summary["skipped_images"] == len(broken)
    assert np.isfinite(summary["loss"])
    assert np.isfinite(losses(tmp_path / "run")).all()
