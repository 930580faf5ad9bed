"""What a step of pre-training costs, and how much faster the student is than its teacher; pretraining.py runs both."""

import statistics
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from peer import interleaved, median_ratio, without_gradients
from regard.models import build
from regard.ops.precision import has_bf16
from regard.recipes import load_recipe
from regard.tasks import PretrainingTask, with_weights_named


def step(photos: Path, store: Path, settings: Sequence[str], *, smoke: bool) -> dict[str, Any]:
    """Seconds of a step of training with stored features, and how much of it is the student."""
    address = f"folder:{photos / 'signdigits'}"
    recipe = with_weights_named(
        load_recipe("pretrain-photos", [*settings, f"features.folder={store}"], address=address)
    )
    task = PretrainingTask(recipe)  # type: ignore[arg-type]
    learner = task.build_model()
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-3)
    batches = iter(task.training_loader(task.order(rank=0, world_size=1)))
    order = task.order(rank=0, world_size=1)
    passes = order.steps_per_epoch * task.lessons.num_views  # in which each view is drawn, and read, for the first time
    first, reading, learning = [], [], []
    for number in range(5 if smoke else passes + 40):
        start = time.perf_counter()
        batch = next(batches)
        read = time.perf_counter()
        if not smoke and number < passes:
            first.append(read - start)
            continue
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16(torch.device("cpu"))):
            loss = task.loss(learner, batch)
        loss.backward()
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
        "batch_size": recipe.train.batch_size,
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
