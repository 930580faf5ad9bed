"""The cost of a trained model: time and memory. `measure` runs this file as a program in a process of its own."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regard.compare.contender import Cost
from regard.errors import RegardError
from regard.tasks import Classifier, Task, create_task
from regard.training import Run, load_predictor, memory_above_mb

BATCH_SIZE = 64
"""Of images; other samples are measured in batches of the recipe's size."""
REPETITIONS = 15


def measure(run: Path) -> Cost:
    """The time of inference and the memory of a training step of a run's model, measured in a process of its own."""
    command = [sys.executable, "-m", "regard.compare.cost", str(run)]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if result.returncode:
        raise RegardError(f"{run}: measuring its cost failed: {_last_line(result.stderr)}")
    return Cost(**json.loads(result.stdout))


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else "no word why"


def measure_here(run: Path) -> Cost:
    """As `measure`, in this process."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    predictor = load_predictor(run, device=device)
    model = predictor.model
    if isinstance(predictor, Classifier):
        infer, loss, batch_size = _with_images(predictor, device)
    else:
        infer, loss, batch_size = _with_a_batch(create_task(Run.open(run).recipe()), model, device)

    for _ in range(3):
        infer()
    seconds = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        infer()
        seconds.append(time.perf_counter() - start)

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    model.train()

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    memory = memory_above_mb(step, device)
    return Cost(statistics.median(seconds) / batch_size, memory, batch_size)


# Inference on a batch, the loss on it, and how many samples it has.
Work = tuple[Callable[[], None], Callable[[], Tensor], int]


def _with_images(classifier: Classifier, device: torch.device) -> Work:
    """On random images: their contents do not change the cost."""
    model, pre = classifier.model, classifier.preprocessing
    images = torch.randn(BATCH_SIZE, pre.channels, *pre.img_size, device=device)
    labels = torch.arange(BATCH_SIZE, device=device) % len(classifier.class_names)

    def infer() -> None:
        with torch.inference_mode():
            model(images).sum().item()  # waits for the device

    return infer, lambda: F.cross_entropy(model(images), labels), BATCH_SIZE


def _with_a_batch(task: Task, model: nn.Module, device: torch.device) -> Work:
    """On the first training batch, since lengths of sequences matter; inference is the forward pass of the loss."""
    batch = next(iter(task.training_loader(task.order(rank=0, world_size=1)))).to(device)
    with torch.no_grad(), _inputs_of(model) as inputs:
        task.loss(model, batch)

    def infer() -> None:
        with torch.inference_mode():
            for positional, named in inputs:
                model(*positional, **named)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return infer, lambda: task.loss(model, batch), len(batch)


@contextmanager
def _inputs_of(model: nn.Module) -> Iterator[list[tuple[tuple[Any, ...], dict[str, Any]]]]:
    """Records the arguments of each call of the model."""
    noted: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def note(_: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        noted.append((positional, named))

    handle = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield noted
    finally:
        handle.remove()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(measure_here(Path(sys.argv[1])))))
