"""The training loop, read from top to bottom. The task owns the data, the model and the loss."""

import math
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object
from torch import nn

from regard.data import seed_for
from regard.errors import RegardError, first_few, first_of
from regard.files import remove_leftovers, write_json
from regard.mixers import redraw_features
from regard.recipes import Recipe
from regard.tasks import Task, create_task
from regard.training.budget import Budget, learning_rate
from regard.training.machine import has_bf16, machine, peak_memory_mb, versions
from regard.training.metrics_log import MetricsLog
from regard.training.nan_watch import watch_finite
from regard.training.optim import create_average, create_optimizer
from regard.training.progress import Bar
from regard.training.run import Run
from regard.training.state import Progress, State


def train(recipe: Recipe, folder: Path, *, resume: bool = False, bar: Bar | None = None) -> dict[str, Any]:
    """Trains what `recipe` says in the run folder `folder`, and returns what its summary.json then holds.

    With `resume`, goes on from the folder's last state. Order, augmentation and every random draw are functions of
    the seed and the step, so that a resumed run ends with the same weights, to the bit, as one that was never
    interrupted (for budgets in steps or epochs, on one device).
    Raises RegardError for data that cannot be read, a folder that exists, a loss that is not finite, a full disk.
    """
    options = recipe.train
    accelerator = Accelerator(cpu=options.device == "cpu", mixed_precision="no")
    rank, world_size, main = accelerator.process_index, accelerator.num_processes, accelerator.is_main_process
    run = Run(folder)
    if main and not resume:
        run.require_new()
    task = create_task(recipe)
    bar = bar or Bar(visible=main).part(0, folder.name)
    _require_sound(task, bar)
    order = task.order(rank=rank, world_size=world_size)
    half = options.precision == "bf16" or (options.precision == "auto" and has_bf16(accelerator.device))
    budget, embed_dim = Budget.of(options, order.steps_per_epoch), recipe.model.config().embed_dim

    torch.manual_seed(recipe.seed)
    plain_model = task.build_model()
    average = create_average(plain_model, options.ema_decay).to(accelerator.device) if options.ema_decay else None
    model, optimizer = accelerator.prepare(plain_model, create_optimizer(plain_model, options))
    kept_model: nn.Module = plain_model if average is None else average.module

    if main and not resume:
        run.create(recipe, {**task.metadata(), "versions": versions()})
    if main and resume:
        remove_leftovers(run.path)
        remove_leftovers(run.path / "state")
    accelerator.wait_for_everyone()
    if options.find_nonfinite:
        watch_finite(plain_model)
    state = State(run.path, accelerator, average)
    progress = state.load() if resume else Progress()
    order.start_step = progress.step
    batches = iter(task.training_loader(order))
    started = time.monotonic() - progress.seconds

    def evaluate() -> None:
        if world_size > 1:
            # Batch norms have statistics of each process's own images; what is kept are the main one's.
            for buffer in kept_model.buffers():
                broadcast(buffer)
        shares = gather_object([task.evaluate(kept_model, rank=rank, world_size=world_size)])
        progress.metrics = task.metrics(shares)
        for share in shares:
            progress.skipped += [name for name in share.skipped if name not in progress.skipped]
        progress.evaluated_step = progress.step
        log.write("val", progress.step, progress.step / order.steps_per_epoch, **progress.metrics)
        score = progress.metrics[task.main_metric]
        better = progress.best is None or (score > progress.best if task.larger_is_better else score < progress.best)
        if better:
            progress.best, progress.best_step = score, progress.step
            if main:
                run.save_weights(kept_model, run.best_file)
        progress.seconds = _agreed(time.monotonic() - started, accelerator)

    def save() -> None:
        if main:
            run.save_weights(kept_model, run.weights_file)
        state.save(progress)

    with bar, MetricsLog(run, progress.step, main=main) as log:
        model.train()
        while budget.spent(progress.step, progress.seconds) < 1:
            step_started = time.monotonic()
            # The middle of the coming step: with a budget in steps, neither the first nor the last has a rate of zero.
            spent = budget.spent(progress.step + 0.5, progress.seconds)
            rate = learning_rate(options, spent, step=progress.step + 1, embed_dim=embed_dim)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["share"]
            torch.manual_seed(seed_for(recipe.seed, progress.step, rank))
            redraw_features(plain_model, progress.step)

            parts, names = [next(batches) for _ in range(options.accumulate)], []
            for batch in parts:
                names += batch.names
                progress.skipped += [name for name in batch.skipped if name not in progress.skipped]
                if not batch.names:
                    raise RegardError(f"step {progress.step + 1}: nothing in the batch can be read: {batch.skipped}")
            # The mean over a whole step, whatever its parts and processes: a part with more tokens counts for more.
            whole = _mean_over_processes(sum(task.weight(batch) for batch in parts), accelerator)
            loss = torch.zeros((), device=accelerator.device)
            for number, batch in enumerate(parts, start=1):
                share = task.weight(batch) / whole
                batch = batch.to(accelerator.device)
                synchronise = number == options.accumulate
                with nullcontext() if synchronise else accelerator.no_sync(model):
                    with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=half):
                        part_loss = task.loss(model, batch) * share
                    accelerator.backward(part_loss)
                loss += part_loss.detach()
            norm = accelerator.clip_grad_norm_(model.parameters(), options.clip_grad or math.inf)
            mean_loss = accelerator.reduce(loss, "mean").item()
            if not (math.isfinite(mean_loss) and norm.isfinite()):
                raise _not_finite(mean_loss, norm.item(), progress.step + 1, names, task.unit, state)
            optimizer.step()
            optimizer.zero_grad()
            if average is not None:
                average.update_parameters(plain_model)

            progress.step += 1
            progress.samples += len(names) * world_size
            progress.training_seconds += time.monotonic() - step_started
            progress.seconds = _agreed(time.monotonic() - started, accelerator)
            epoch = progress.step / order.steps_per_epoch
            log.write("train", progress.step, epoch, loss=mean_loss, lr=rate, grad_norm=norm.item())

            ends_epoch = progress.step % order.steps_per_epoch == 0
            ends_period = ends_epoch and round(epoch) % options.evaluate_every == 0
            if _due(options.evaluate_every_steps, progress.step, ends_period):
                evaluate()
            if _due(options.save_every_steps, progress.step, ends_epoch):
                save()
            score = progress.metrics.get(task.main_metric)
            told = "" if score is None else f", {task.main_metric} {score:.3f}"
            bar.update(budget.spent(progress.step, progress.seconds), f"epoch {epoch:.1f}, loss {mean_loss:.3f}{told}")
        if progress.evaluated_step != progress.step:
            evaluate()
        save()

    summary = _summary(recipe, task, plain_model, progress, accelerator)
    if main:
        write_json(run.summary_file, summary)
    accelerator.wait_for_everyone()
    return summary


def _require_sound(task: Task, bar: Bar) -> None:
    """RegardError for data that would spoil the training; what only may is told."""
    issues = task.check()
    errors = [f"{issue.where}: {issue.what}" for issue in issues if issue.severity == "error"]
    if errors:
        raise RegardError(first_of(errors, "more: see `regard data check`"))
    for issue in issues:
        bar.tell(f"warning: {issue.where}: {issue.what}")


def _due(every_steps: int | None, step: int, otherwise: bool) -> bool:
    """Whether a step ends a period: one that is counted in steps, or else by epochs."""
    return otherwise if every_steps is None else step % every_steps == 0


def _mean_over_processes(number: int, accelerator: Accelerator) -> float:
    if accelerator.num_processes == 1:
        return float(number)
    mean = accelerator.reduce(torch.tensor(float(number), device=accelerator.device), "mean")
    return float(mean.item())


def _agreed(seconds: float, accelerator: Accelerator) -> float:
    """The main process's clock, so that all processes stop at the same step."""
    if accelerator.num_processes == 1:
        return seconds
    clock = torch.tensor(seconds, dtype=torch.float32, device=accelerator.device)
    return float(broadcast(clock).item())


def _not_finite(loss: float, norm: float, step: int, names: list[str], unit: str, state: State) -> RegardError:
    kept = f"the last good checkpoint is {state.latest}" if state.latest else "there is no checkpoint yet"
    return RegardError(
        f"step {step}: the loss is {loss} and the gradient's norm {norm}, so the run stops; {kept}; "
        f"a lower train.lr often helps; {unit} of the batch: {first_few(names, 8)}"
    )


def _summary(
    recipe: Recipe, task: Task, model: nn.Module, progress: Progress, accelerator: Accelerator
) -> dict[str, Any]:
    return {
        **progress.metrics,
        "best": {task.main_metric: progress.best, "step": progress.best_step},
        "seconds": round(progress.seconds, 2),
        "steps": progress.step,
        "epochs": progress.step / task.order(rank=0, world_size=1).steps_per_epoch,
        f"{task.unit}_per_second": round(progress.samples / max(progress.training_seconds, 1e-9), 1),
        f"skipped_{task.unit}": len(task.skipped) + len(set(gather_object(progress.skipped))),
        "peak_memory_mb": round(peak_memory_mb(accelerator.device), 1),
        "flops": task.flops(model),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seed": recipe.seed,
        "processes": accelerator.num_processes,
        "versions": versions(),
        "machine": machine(),
    }
