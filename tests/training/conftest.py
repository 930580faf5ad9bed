"""Runs that take a fraction of a second: one narrow block on the digits."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from regard.recipes import Recipe, load_recipe
from regard.training import Run, train

TINY = (
    *("model.depth=1", "model.embed_dim=16", "model.num_heads=2", "train.batch_size=64", "train.device=cpu"),
    "train.evaluate_every=1",  # however long it takes
)


@pytest.fixture(scope="session")
def recipe() -> Callable[..., Recipe]:
    """recipe(*settings) -> a recipe that trains 6 steps unless told otherwise."""

    def load(*settings: str) -> Recipe:
        return load_recipe("vit-digits", [*TINY, "train.max_steps=6", *settings])

    return load


@pytest.fixture
def trained(recipe: Callable[..., Recipe], tmp_path: Path) -> Callable[..., Run]:
    """trained(name, *settings) -> the finished run tmp_path/name."""

    def run(name: str, *settings: str) -> Run:
        train(recipe(*settings), tmp_path / name)
        return Run(tmp_path / name)

    return run


@pytest.fixture
def command() -> Callable[..., dict[str, Any]]:
    """command(*arguments) -> how to start `regard` in a process of its own, and the environment for it."""

    def parts(*arguments: object) -> dict[str, Any]:
        return {
            "args": [sys.executable, "-m", "regard", *map(str, arguments)],
            "env": {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "NO_COLOR": "1"},
            "text": True,
        }

    return parts


@pytest.fixture
def tiny_train(command: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """tiny_train(folder, *settings) -> the command that trains a tiny model there."""

    def parts(folder: Path, *settings: str) -> dict[str, Any]:
        return command(
            "train", "vit-digits", "--out", folder, *(x for setting in (*TINY, *settings) for x in ("--set", setting))
        )

    return parts


@pytest.fixture
def kill_when() -> Callable[[dict[str, Any], Callable[[], bool]], None]:
    """kill_when(how, reached) -> starts a command, kills it with SIGKILL once `reached()`, and waits for its end."""

    def start(how: dict[str, Any], reached: Callable[[], bool]) -> None:
        with subprocess.Popen(**how, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            while not reached():
                assert process.poll() is None, process.stderr and process.stderr.read()
                time.sleep(0.001)
            process.kill()
        assert process.returncode == -signal.SIGKILL

    return start


def steps(run: Path) -> list[int]:
    """The steps that metrics.jsonl holds, by now."""
    file = run / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []
    return [record["step"] for record in map(json.loads, lines) if record["kind"] == "train"]


def same_tensors(a: Path, b: Path) -> None:
    """Asserts that two safetensors files hold the same, to the bit."""
    first, second = load_file(a), load_file(b)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def same_run(a: Path, b: Path) -> None:
    """Asserts that two finished runs have the same weights, records and optimiser state, to the bit."""
    same_tensors(a / "model.safetensors", b / "model.safetensors")
    same_tensors(a / "best.safetensors", b / "best.safetensors")
    assert Run(a).history() == Run(b).history()
    pointer = (a / "state" / "latest").read_text(encoding="utf-8")
    assert (b / "state" / "latest").read_text(encoding="utf-8") == pointer
    states = [folder / "state" / pointer.strip() for folder in (a, b)]
    same_tensors(*(state / "model.safetensors" for state in states))
    first, second = (torch.load(state / "optimizer.bin", weights_only=True) for state in states)
    assert first["param_groups"] == second["param_groups"]
    assert first["state"].keys() == second["state"].keys()
    assert len(first["state"]) > 10
    for key, moments in first["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, second["state"][key][name]), (key, name)


@pytest.fixture
def compare_runs() -> Callable[[Path, Path], None]:
    return same_run


@pytest.fixture
def steps_of() -> Callable[[Path], list[int]]:
    return steps
