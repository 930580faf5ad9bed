"""The training loop and its step, read from top to bottom. The task owns the data, the model and the loss."""

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from regard.data import seed_for
from regard.errors import RegardError
from regard.mixers import redraw_features
from regard.recipes import Recipe
from regard.training.budget import learning_rate
from regard.training.progress import Bar
from regard.training.session import Session


def train(recipe: Recipe, folder: Path, *, resume: bool = False, bar: Bar | None = None) -> dict[str, Any]:
    """Trains what `recipe` says in the run folder `folder`, and returns what its summary.json then holds.

    With `resume`, goes on from the folder's last state. Order, augmentation and every random draw are functions of
    the seed and the step, so that a resumed run ends with the same weights, to the bit, as one that was never
    interrupted (for budgets in steps or epochs, on one device).
    Raises RegardError for data that cannot be read, a folder that exists, a loss that is not finite, a full disk.
    """
    session = Session(recipe, folder, resume=resume, bar=bar)
    with session.running():
        session.model.train()
        while session.spent() < 1:
            started = time.monotonic()
            result = train_step(session)
            session.count(result.num_samples, seconds=time.monotonic() - started)
            session.record(loss=result.loss, lr=result.lr, grad_norm=result.grad_norm)
            if session.evaluation_is_due():
                session.evaluate()
            if session.save_is_due():
                session.save()
            session.show(result.loss)
        if session.progress.evaluated_step != session.progress.step:
            session.evaluate()
        session.save()
    return session.finish()


@dataclass(frozen=True)
class StepResult:
    loss: float
    """The mean over the whole batch, of all processes."""
    lr: float
    grad_norm: float
    num_samples: int
    """Of this process."""


def train_step(session: Session) -> StepResult:
    """One step of the optimiser: its learning rate, its micro-batches, their gradients, the update.

    The loss is the mean over the whole batch: a micro-batch with more tokens counts for more. RegardError where
    nothing in a micro-batch can be read, or the loss or the gradient is not finite.
    """
    options, accelerator, task = session.recipe.train, session.accelerator, session.task
    step = session.progress.step
    # The middle of the coming step: with a budget in steps, neither the first nor the last has a rate of zero.
    rate = learning_rate(options, session.spent(step + 0.5), step=step + 1, embed_dim=session.embed_dim)
    for group in session.optimizer.param_groups:
        group["lr"] = rate * group["share"]
    torch.manual_seed(seed_for(session.recipe.seed, step, accelerator.process_index))
    redraw_features(session.plain_model, step)

    micro_batches, names = [next(session.batches) for _ in range(options.accumulate)], []
    for batch in micro_batches:
        names += batch.names
        session.progress.skip(batch.skipped)
        if not batch.names:
            raise RegardError(f"step {step + 1}: nothing in the batch can be read: {batch.skipped}")
    whole = session.mean_over_processes(sum(task.weight(batch) for batch in micro_batches))
    loss = torch.zeros((), device=accelerator.device)
    for number, batch in enumerate(micro_batches, start=1):
        weight = task.weight(batch) / whole
        batch = batch.to(accelerator.device)
        is_last = number == options.accumulate
        with nullcontext() if is_last else accelerator.no_sync(session.model):
            with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=session.bf16):
                weighted_loss = task.loss(session.model, batch) * weight
            accelerator.backward(weighted_loss)
        loss += weighted_loss.detach()
    norm = accelerator.clip_grad_norm_(session.model.parameters(), options.clip_grad or math.inf)
    mean_loss = accelerator.reduce(loss, "mean").item()
    if not (math.isfinite(mean_loss) and norm.isfinite()):
        raise session.not_finite(mean_loss, norm.item(), names)
    session.optimizer.step()
    session.optimizer.zero_grad()
    if session.average is not None:
        session.average.update_parameters(session.plain_model)
    return StepResult(mean_loss, rate, norm.item(), len(names))
