"""Two processes (gloo, on CPU) train what one does."""

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from regard import load
from regard.files import locked
from regard.tasks import DetectionTask
from regard.training import Run, train

# What draws for each process apart is off, and so is the bias of keys, whose gradient is zero but for rounding.
SETTINGS = (
    *("train.max_steps=22", "train.ema_decay=0.9", "train.accumulate=2", "model.drop_path=0"),
    "model.mixer_options.attention.qkv_bias=false",
)


@pytest.fixture
def two(tiny_train):
    """two(folder, *settings) -> the finished command that trains there in two processes."""

    def run(folder, *settings) -> subprocess.CompletedProcess[str]:
        return subprocess.run(**_by_two(tiny_train(folder, *settings)), capture_output=True, check=False)

    return run


def _by_two(how: dict[str, Any]) -> dict[str, Any]:
    """A command of regard's, by two processes."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "regard"]
    args = [sys.executable, *launch, *how["args"][3:]]
    return how | {"args": args, "env": how["env"] | {"ACCELERATE_USE_CPU": "true"}}


@pytest.mark.slow
def test_two_processes_train_what_one_does(two, recipe, tmp_path):
    finished = two(tmp_path / "two", *SETTINGS)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("run: ") == 1
    train(recipe(*SETTINGS), tmp_path / "one")
    pair, single = Run(tmp_path / "two"), Run(tmp_path / "one")

    assert pair.summary()["processes"] == 2
    assert single.summary()["processes"] == 1
    assert {path.name for path in (pair.path / "state" / "step-22").glob("random_states_*")} == {
        "random_states_0.pkl",
        "random_states_1.pkl",
    }
    assert pair.history()[-1]["kind"] == "val"
    for ours, theirs in zip(pair.history(), single.history(), strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            if isinstance(value, float):
                torch.testing.assert_close(value, theirs[key], rtol=1e-4, atol=1e-5, msg=f"{ours} {theirs}")
            else:
                assert value == theirs[key]
    # The pieces are the same images, evaluated each once.
    assert pair.summary()["accuracy"] == single.summary()["accuracy"]
    for name in ("model.safetensors", "best.safetensors", "state/step-22/model.safetensors"):
        ours, theirs = load_file(pair.path / name), load_file(single.path / name)
        assert ours.keys() == theirs.keys()
        for key, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[key], rtol=1e-4, atol=1e-5)
    assert json.loads((pair.path / "state/step-22/progress.json").read_text(encoding="utf-8"))["samples"] == 22 * 64


@pytest.mark.slow
def test_two_processes_train_a_detector(command, tmp_path):
    """What they keep is what they evaluated, though each has batch norms of its own images' statistics."""
    small = (
        *("model.embed_dim=32", "model.num_heads=4", "data.first=12", "data.validate_on=train", "train.batch_size=4"),
        *("train.max_steps=4", "train.precision=fp32", "train.device=cpu"),
    )
    how = command("train", "detr-small", "--out", tmp_path / "two", *(x for one in small for x in ("--set", one)))
    finished = subprocess.run(**_by_two(how), capture_output=True, check=False)
    assert finished.returncode == 0, finished.stderr
    run = Run(tmp_path / "two")
    assert run.summary()["processes"] == 2
    task = DetectionTask(run.recipe())
    kept = load(run.path).model
    wanted = task.metrics([task.evaluate(kept, rank=rank, world_size=2) for rank in range(2)])
    for name, value in wanted.items():
        assert run.summary()[name] == pytest.approx(value, rel=1e-5, abs=1e-6)


@pytest.mark.slow
def test_a_batch_that_two_processes_cannot_share(two, tmp_path):
    finished = two(tmp_path / "two", "train.batch_size=63")
    assert finished.returncode != 0
    told = "error: batch_size 63 cannot be cut into 2 equal micro-batches (2 processes × 1 accumulated)"
    assert told in finished.stderr
    assert not (tmp_path / "two").exists()


@pytest.mark.slow
def test_of_two_processes_none_waits_where_the_folder_is_another_trainings(two, tmp_path):
    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run"):
        finished = two(tmp_path / "run", "train.max_steps=2")
    assert finished.returncode == 1
    assert "is writing into this folder" in finished.stderr
    assert not any((tmp_path / "run").iterdir())
