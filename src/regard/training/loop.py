"""The training loop, read from top to bottom. The task owns the data, the model and the loss."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from regard.recipes import Recipe
from regard.training.machine import create_accelerator
from regard.training.progress import Bar
from regard.training.run import Run, claimed
from regard.training.session import Session
from regard.training.way_on import with_a_way_on


def train(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    bar: Bar | None = None,
    then: Callable[[], object] | None = None,
    tested: Callable[[Session], object] | None = None,
) -> dict[str, Any]:
    """Trains what `recipe` says in the run folder `folder`, and returns what its summary.json then holds.

    With `resume`, goes on from the folder's newest whole state. Order, augmentation and every random draw are functions
    of the seed and the step, so that a resumed run ends with the same weights, to the bit, as one that was never
    interrupted (for budgets in steps or epochs, on one device). From before the data are opened until the end the
    folder belongs to this training alone; `then` is done last, by the main process: a report.

    `tested` makes it a training that is compared with others. Minutes are then of steps alone: compiling, features,
    evaluating and saving are off the clock. The held-out part is evaluated once, at the end, unless the recipe says how
    often; `train.patience` looks at `data.selection` alone. At the end `tested` gets the session, with the `shards` of
    that evaluation and its progress.
    Raises RegardError for data that cannot be read, a folder that exists or that another process writes into, data or
    a recipe that are not those of the run to resume, a loss that is not finite, a full disk.
    """
    accelerator = create_accelerator(recipe.train.device)
    with claimed(Run(folder), accelerator, new=not resume):
        session = Session(recipe, folder, accelerator, resume=resume, bar=bar, compared=tested is not None)
        with session.bar, session.log, with_a_way_on(session):
            session.model.train()
            while not session.over:
                step(session)
            session.end()
        summary = session.finish()
        if tested is not None and session.main:
            tested(session)
        if then is not None and session.main:
            then()
    return summary


@dataclass(frozen=True)
class Standing:
    """Where a training stands that was stopped to be compared with others."""

    step: int
    seconds: float
    """Of its training, with features and evaluations."""
    step_seconds: float
    """Of its steps alone."""
    score: float
    """The task's main metric on the images of `data.selection`."""
    over: bool
    """Whether its budget was spent."""


def train_until(
    recipe: Recipe,
    folder: Path,
    *,
    steps: int | None = None,
    seconds: float = math.inf,
    resume: bool = False,
    halfway: Callable[[float], object] | None = None,
    bar: Bar | None = None,
) -> Standing:
    """As `train`, but stops after so many `steps`, or `seconds` of steps, measures `data.selection`, and saves a state.

    The schedule is that of the recipe's budget. `train` with `resume` goes on from there. `halfway` gets what is
    measured in the middle, once a state is saved.
    """
    accelerator = create_accelerator(recipe.train.device)
    with claimed(Run(folder), accelerator, new=not resume):
        session = Session(recipe, folder, accelerator, resume=resume, bar=bar)
        progress = session.progress
        with session.bar, session.log, with_a_way_on(session):
            session.model.train()
            while not session.over and progress.training_seconds < seconds and (steps is None or progress.step < steps):
                step(session)
                is_half = 2 * progress.training_seconds >= seconds or (steps is not None and 2 * progress.step >= steps)
                if is_half and halfway is not None:
                    session.save()
                    halfway(session.select())
                    session.model.train()
                    halfway = None
            score = session.select()
            session.save()
        return Standing(progress.step, progress.seconds, progress.training_seconds, score, session.over)


def step(session: Session) -> None:
    micro_batches = session.begin_step()
    loss, norm = train_step(session, micro_batches)
    session.end_step(sum(len(batch.names) for batch in micro_batches), loss, norm)


def train_step(session: Session, micro_batches: list[Any]) -> tuple[float, float]:
    """One step of the optimiser. Returns the mean loss and the gradient's norm before it is clipped."""
    accelerator, task, model = session.accelerator, session.task, session.model
    # The loss is the mean over the whole step, all micro-batches and processes: one with more tokens counts for more.
    total = session.mean_over_processes(sum(task.weight(batch) for batch in micro_batches))
    loss = torch.zeros((), device=accelerator.device)
    for number, batch in enumerate(micro_batches, start=1):
        weight = task.weight(batch) / total
        batch = batch.to(accelerator.device)
        is_last = number == len(micro_batches)  # the gradients of the processes are joined once
        with nullcontext() if is_last else accelerator.no_sync(model):
            with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=session.half):
                micro_loss = task.loss(model, batch) * weight
            accelerator.backward(micro_loss)
        loss += micro_loss.detach()
    norm = accelerator.clip_grad_norm_(model.parameters(), session.recipe.train.clip_grad or math.inf)
    mean_loss = accelerator.reduce(loss, "mean").item()
    if not (math.isfinite(mean_loss) and norm.isfinite()):
        names = [name for batch in micro_batches for name in batch.names]
        raise session.not_finite(mean_loss, norm.item(), names)
    session.optimizer.step()
    session.optimizer.zero_grad()
    if session.average is not None:
        session.average.update_parameters(session.plain_model)
    return mean_loss, norm.item()
