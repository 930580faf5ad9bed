"""What a step of pre-training costs, and how much faster the student is than its teacher; pretraining.py asks."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from peer import interleaved, median_ratio, without_gradients
from regard.models import build
from regard.ops.precision import has_bf16
from regard.recipes import PretrainingRecipe, load_recipe
from regard.tasks import PretrainingTask, with_weights_named
from regard.tasks.pretraining.batches import PretrainingBatch


def opened(photos: Path, settings: Sequence[str]) -> PretrainingTask:
    address = f"folder:{photos / 'signdigits'}"
    recipe = with_weights_named(load_recipe("pretrain-photos", settings, address=address))
    assert isinstance(recipe, PretrainingRecipe)
    return PretrainingTask(recipe)


def relative_step(photos: Path, own: Sequence[str], other: Sequence[str], *, smoke: bool) -> float:
    """Seconds of a step with some settings over those with others, on one core in turn."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ways = {name: _a_step(opened(photos, settings)) for name, settings in (("own", own), ("other", other))}
    seconds = interleaved(ways, repetitions=2 if smoke else 9)
    torch.set_num_threads(threads)
    return median_ratio(seconds["own"], seconds["other"])


def _a_step(task: PretrainingTask) -> Callable[[], object]:
    learner, size = task.build_model(), task.recipe.train.batch_size
    batch = next(iter(task.lessons.held_out(range(size), size)))
    return lambda: _learn(task, learner, batch)


def _learn(task: PretrainingTask, learner: nn.Module, batch: PretrainingBatch) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16(torch.device("cpu"))):
        loss = task.loss(learner, batch)
    loss.backward()


def step(photos: Path, settings: Sequence[str], *, smoke: bool) -> dict[str, Any]:
    """Seconds of a step of training with stored features, and how much of it is the student."""
    task = opened(photos, settings)
    learner = task.build_model()
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-3)
    order = task.order(rank=0, world_size=1)
    batches = iter(task.training_loader(order))
    passes = order.steps_per_epoch * task.lessons.num_views  # in which each view is drawn, and read, for the first time
    first, reading, learning = [], [], []
    for number in range(5 if smoke else passes + 40):
        start = time.perf_counter()
        batch = next(batches)
        read = time.perf_counter()
        if not smoke and number < passes:
            first.append(read - start)
            continue
        _learn(task, learner, batch)
        optimizer.step()
        optimizer.zero_grad()
        reading.append(read - start)
        learning.append(time.perf_counter() - read)
    return {
        "first_reading_seconds": statistics.median(first or reading),
        "reading_seconds": statistics.median(reading[2:]),
        "student_seconds": statistics.median(learning[2:]),
        "student_share": statistics.median(b / (a + b) for a, b in zip(reading[2:], learning[2:], strict=True)),
        "steps_of_first_readings": passes,
        "batch_size": task.recipe.train.batch_size,
    }


def speed(*, smoke: bool) -> dict[str, Any]:
    """How many times as fast as its teacher at 224 pixels the student looks at images, in the same precision, eager."""
    recipe = load_recipe("pretrain-photos", address="digits", task="pretraining")
    student = build(recipe.model.config(num_classes=10)).eval()
    size = student.config.img_size
    dinov2 = build(load_recipe("finetune-photos").model.config(num_classes=10)).eval()
    found: dict[str, Any] = {}
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        student.to(dtype)
        dinov2.to(dtype)
        for batch in (1, 32):
            small = torch.randn(batch, 3, size, size, dtype=dtype)
            large = torch.randn(batch, 3, 224, 224, dtype=dtype)
            ways = {
                "student": without_gradients(partial(student, small)),
                "teacher": without_gradients(partial(dinov2, large)),
            }
            seconds = interleaved(ways, repetitions=3 if smoke else 15)
            found[f"{precision}, batch {batch}"] = {
                "student_ms": 1000 * statistics.median(seconds["student"]) / batch,
                "teacher_ms": 1000 * statistics.median(seconds["teacher"]) / batch,
                "ratio": median_ratio(seconds["teacher"], seconds["student"]),
            }
    found["parameters"] = sum(parameter.numel() for parameter in student.parameters())
    return found
