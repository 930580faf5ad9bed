"""A loss that is not finite, a disk that fills, images that cannot be read: one line, and nothing lost."""

import errno
import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import regard.training.metrics_log
import regard.training.run
import regard.training.session
import regard.training.state
from regard.errors import RegardError
from regard.files import write_whole
from regard.tasks import ClassificationTask
from regard.training import Bar, Run, load_classifier, train

SAVING = ("train.max_steps=9", "train.save_every_steps=4", "train.ema_decay=0.9")


def failing(recipe, path: Path) -> str:
    """What a run that has to fail says."""
    with pytest.raises(RegardError) as caught:
        train(recipe, path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory) -> Path:
    """A run that nothing disturbed."""
    path = tmp_path_factory.mktemp("whole") / "run"
    train(recipe(*SAVING), path)
    return path


def test_a_loss_that_is_not_finite_stops_the_run(recipe, tmp_path):
    told = failing(recipe("train.lr=1e30", "train.clip_grad=0", "train.warmup=0"), tmp_path / "run")
    step = len(Run(tmp_path / "run").history()) + 1
    assert told.startswith(f"step {step}: the loss is ")
    assert "there is no checkpoint yet" in told
    assert "train.lr" in told
    assert told.count("digits[") == 8
    assert told.endswith("and 56 more")


def test_the_last_good_checkpoint_is_named_and_loads(recipe, tmp_path, monkeypatch, compare_runs, whole):
    loss, calls = ClassificationTask.loss, []

    def explode(self, model, batch):
        calls.append(batch.names)
        return loss(self, model, batch) * (float("inf") if len(calls) == 7 else 1.0)

    with monkeypatch.context() as patch:
        patch.setattr(ClassificationTask, "loss", explode)
        told = failing(recipe(*SAVING), tmp_path / "run")
    assert told.startswith("step 7: the loss is inf")
    assert f"the last good checkpoint is {tmp_path / 'run' / 'state' / 'step-4'};" in told
    assert ", ".join(calls[-1][:8]) in told
    assert all(torch.isfinite(t).all() for t in load_file(tmp_path / "run/state/step-4/model.safetensors").values())
    assert len(load_classifier(tmp_path / "run").class_names) == 10
    train(recipe(*SAVING), tmp_path / "run", resume=True)
    compare_runs(whole, tmp_path / "run")


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_step(recipe, tmp_path, monkeypatch):
    loss = ClassificationTask.loss

    class Poison(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("nan")

    monkeypatch.setattr(ClassificationTask, "loss", lambda self, model, batch: Poison.apply(loss(self, model, batch)))
    told = failing(recipe(), tmp_path / "run")
    assert told.startswith("step 1: the loss is 2.")
    assert "the gradient's norm nan" in told


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_after(number: int, write):
    """`write`, until the disk is full."""
    calls = []

    def wrapper(*arguments, **named):
        calls.append(1)
        return full() if len(calls) > number else write(*arguments, **named)

    return wrapper


@pytest.mark.parametrize(
    ("module", "name", "written", "where"),
    [
        (regard.training.run, "save_file", 1, "model.safetensors"),
        (regard.training.run, "save_file", 0, "model.safetensors"),
        (regard.training.state, "save_file", 1, "step-8"),
        (regard.training.state, "write_json", 1, "step-8"),
        (regard.training.state, "write_whole", 1, "step-8"),
        (regard.training.state, "flush", 6, "step-8"),
    ],
)
def test_a_disk_that_fills_while_saving(
    recipe, tmp_path, monkeypatch, whole, compare_runs, module, name, written, where
):
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(module, name, full_after(written, getattr(module, name)))
        told = failing(recipe(*SAVING), path)
    assert told.startswith(str(path))
    assert where in told.partition(": ")[0]
    assert "could not be saved" in told
    assert "No space left on device" in told
    assert [folder.name for folder in path.glob("state/step-*")] == (["step-4"] if written else [])
    assert not list(path.rglob(".*"))
    assert not (path / "summary.json").exists()
    if "step-8" in where:
        assert f"{path / 'state' / 'step-4'} is whole and can be resumed" in told
    train(recipe(*SAVING), path, resume=True)
    compare_runs(whole, path)


def test_a_disk_that_is_full_for_the_metrics(recipe, tmp_path, monkeypatch, whole, compare_runs):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    init = regard.training.metrics_log.MetricsLog.__init__

    def redirect(self, *arguments, **named):
        init(self, *arguments, **named)
        self._file.close()
        self._file = Path("/dev/full").open("a", encoding="utf-8")  # noqa: SIM115 - the log closes it

    with monkeypatch.context() as patch:
        patch.setattr(regard.training.metrics_log.MetricsLog, "__init__", redirect)
        told = failing(recipe(*SAVING), tmp_path / "run")
    assert told == "/dev/full: could not be written: No space left on device"
    train(recipe(*SAVING), tmp_path / "run", resume=True)
    compare_runs(whole, tmp_path / "run")


def test_a_disk_that_is_full_for_the_summary(recipe, tmp_path, monkeypatch, whole, compare_runs):
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(regard.training.session, "write_json", lambda file, _: write_whole(file, full))
        told = failing(recipe(*SAVING), path)
    assert told.startswith(f"{path / 'summary.json'}: could not be saved")
    compare_runs(whole, path)
    assert train(recipe(*SAVING), path, resume=True) == Run(path).summary()
    compare_runs(whole, path)


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "where"), [(30_000, "state/step-4"), (10_000, "model.safetensors")])
def test_files_that_may_not_grow(tiny_train, recipe, whole, compare_runs, tmp_path, limit, where):
    """The real thing, as far as it can be had without a disk of one's own: the system refuses to write on."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    path = tmp_path / "run"
    finished = subprocess.run(**tiny_train(path, *SAVING), capture_output=True, check=False, preexec_fn=limited)
    assert finished.returncode == 1
    errors = [line for line in finished.stderr.splitlines() if "Traceback" in line or line.startswith("error:")]
    assert len(errors) == 1
    assert errors[0].startswith(f"error: {path / where}: could not be saved")
    assert "File too large" in errors[0] or "File size limit" in errors[0]
    assert "unexpected pos" not in errors[0]
    assert finished.stderr.splitlines()[-1] == errors[0]
    assert not list(path.glob("state/step-*"))
    train(recipe(*SAVING), path, resume=True)
    compare_runs(whole, path)


def test_a_run_folder_that_is_removed_while_it_is_written_is_one_line(recipe, tmp_path, capfd):
    path = tmp_path / "run"

    class Remove(Bar):
        def update(self, share: float, text: str) -> None:
            if text and path.exists():
                shutil.rmtree(path)

    with pytest.raises(RegardError) as caught:
        train(recipe("train.max_steps=30", "train.save_every_steps=25"), path, bar=Remove(visible=False))
    assert str(caught.value).startswith(f"{path}")
    assert "No such file" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in capfd.readouterr().err
    assert not path.exists()


def test_a_full_disk_is_called_so_whatever_torch_says(recipe, tmp_path, monkeypatch):
    """torch.save raises "unexpected pos"; what the disk says is asked of the disk."""
    from accelerate import Accelerator

    def full_for_torch(self, folder):
        (Path(folder) / "optimizer.bin").symlink_to("/dev/full")
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 275904 vs 275798")

    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    monkeypatch.setattr(Accelerator, "save_state", full_for_torch)
    told = failing(recipe(*SAVING), tmp_path / "run")
    assert "state/step-4: could not be saved: [Errno 28] No space left on device; there is no earlier state" in told


@pytest.fixture
def pictures(tmp_path):
    """A folder of two classes with 16 pictures each, two of which are cut short behind their headers."""
    for label in ("dark", "light"):
        for number in range(16):
            file = tmp_path / "pictures" / label / f"{number:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((40, 40), 60 if label == "dark" else 200).save(file)
    for file in ("dark/03.png", "light/05.png"):
        path = tmp_path / "pictures" / file
        path.write_bytes(path.read_bytes()[:200])
    return tmp_path / "pictures"


def test_an_image_cut_short_stops_the_run_with_its_name(recipe, pictures, tmp_path):
    for workers in (0, 1):
        told = failing(
            recipe(f"data.address=folder:{pictures}", f"data.num_workers={workers}", "train.batch_size=8"),
            tmp_path / f"run-{workers}",
        )
        assert told.startswith((f"{pictures}/dark/03.png: ", f"{pictures}/light/05.png: "))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_cut_short_is_skipped_and_counted_once(recipe, pictures, tmp_path, workers):
    settings = (f"data.address=folder:{pictures}", "data.on_bad_image=skip", "train.batch_size=8")
    summary = train(recipe(*settings, f"data.num_workers={workers}", "train.max_steps=12"), tmp_path / "run")
    assert summary["steps"] == 12
    # The held-out quarter is read too; both bad ones are counted, each once, wherever they lie.
    assert summary["skipped_images"] == 2
    assert 0 <= summary["accuracy"] <= 1


def test_a_batch_without_any_image_stops_the_run(recipe, pictures, tmp_path):
    for file in pictures.rglob("*.png"):
        file.write_bytes(file.read_bytes()[:200])
    settings = (f"data.address=folder:{pictures}", "data.on_bad_image=skip", "train.batch_size=8")
    told = failing(recipe(*settings, "data.mean=[0.5]", "data.std=[0.5]"), tmp_path / "run")
    assert told.startswith("step 1: nothing in the batch can be read")
    assert str(pictures) in told
