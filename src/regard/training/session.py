"""What a training carries from step to step: model, optimiser, data, clock, records, and the run folder."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object
from torch import nn

from regard.errors import RegardError, first_few, first_of
from regard.files import remove_leftovers, write_json
from regard.recipes import Recipe
from regard.tasks import Task, create_task
from regard.training.budget import Budget
from regard.training.machine import has_bf16, machine, peak_memory_mb, versions
from regard.training.metrics_log import MetricsLog
from regard.training.nan_watch import watch_finite
from regard.training.optim import create_average, create_optimizer
from regard.training.progress import Bar
from regard.training.run import Run
from regard.training.state import Progress, State


class Session:
    """One training in this process, from the first step, or with `resume` from the folder's last state.

    Raises RegardError for data that would spoil the training, and for a folder that exists.
    """

    def __init__(self, recipe: Recipe, folder: Path, *, resume: bool, bar: Bar | None) -> None:
        self.recipe = recipe
        self.accelerator = Accelerator(cpu=recipe.train.device == "cpu", mixed_precision="no")
        self.main = self.accelerator.is_main_process
        self.run = Run(folder)
        if self.main and not resume:
            self.run.require_new()
        self.task = create_task(recipe)
        self.bar = bar or Bar(visible=self.main).part(0, folder.name)
        _require_sound(self.task, self.bar)
        self.order = self.task.order(rank=self.accelerator.process_index, world_size=self.accelerator.num_processes)
        self.budget = Budget.of(recipe.train, self.order.steps_per_epoch)
        self.embed_dim = recipe.model.config().embed_dim
        precision = recipe.train.precision
        self.bf16 = precision == "bf16" or (precision == "auto" and has_bf16(self.accelerator.device))
        self._create_model()
        self._prepare_folder(resume)
        self.state = State(self.run.path, self.accelerator, self.average)
        self.progress = self.state.load() if resume else Progress()
        self.order.start_step = self.progress.step
        self.batches = iter(self.task.training_loader(self.order))
        self.started = time.monotonic() - self.progress.seconds

    def _create_model(self) -> None:
        options = self.recipe.train
        torch.manual_seed(self.recipe.seed)
        self.plain_model = self.task.build_model()
        self.average = None
        if options.ema_decay:
            self.average = create_average(self.plain_model, options.ema_decay).to(self.accelerator.device)
        optimizer = create_optimizer(self.plain_model, options)
        self.model, self.optimizer = self.accelerator.prepare(self.plain_model, optimizer)
        self.kept_model: nn.Module = self.plain_model if self.average is None else self.average.module

    def _prepare_folder(self, resume: bool) -> None:
        if self.main and not resume:
            self.run.create(self.recipe, {**self.task.metadata(), "versions": versions()})
        if self.main and resume:
            remove_leftovers(self.run.path)
            remove_leftovers(self.run.path / "state")
        self.accelerator.wait_for_everyone()
        if self.recipe.train.find_nonfinite:
            watch_finite(self.plain_model)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within, the bar is shown and the log is open."""
        with self.bar, MetricsLog(self.run, self.progress.step, main=self.main) as self.log:
            yield

    @property
    def epoch(self) -> float:
        return self.progress.step / self.order.steps_per_epoch

    def spent(self, step: float | None = None) -> float:
        """The fraction of the budget that is used up after `step` steps, by default after those that are done."""
        return self.budget.spent(self.progress.step if step is None else step, self.progress.seconds)

    def mean_over_processes(self, number: int) -> float:
        if self.accelerator.num_processes == 1:
            return float(number)
        mean = self.accelerator.reduce(torch.tensor(float(number), device=self.accelerator.device), "mean")
        return float(mean.item())

    def count(self, num_samples: int, *, seconds: float) -> None:
        """A step is done."""
        self.progress.step += 1
        self.progress.samples += num_samples * self.accelerator.num_processes
        self.progress.training_seconds += seconds
        self._read_clock()

    def record(self, **figures: float) -> None:
        self.log.write("train", self.progress.step, self.epoch, **figures)

    def show(self, loss: float) -> None:
        score = self.progress.metrics.get(self.task.main_metric)
        metric = "" if score is None else f", {self.task.main_metric} {score:.3f}"
        self.bar.update(self.spent(), f"epoch {self.epoch:.1f}, loss {loss:.3f}{metric}")

    def evaluation_is_due(self) -> bool:
        options = self.recipe.train
        if options.evaluate_every_steps is not None:
            return self.progress.step % options.evaluate_every_steps == 0
        return self._ends_epoch() and round(self.epoch) % options.evaluate_every == 0

    def save_is_due(self) -> bool:
        every = self.recipe.train.save_every_steps
        return self._ends_epoch() if every is None else self.progress.step % every == 0

    def _ends_epoch(self) -> bool:
        return self.progress.step % self.order.steps_per_epoch == 0

    def evaluate(self) -> None:
        """Measures the kept model on the held-out data, and keeps its weights where they are the best so far."""
        progress, task, accelerator = self.progress, self.task, self.accelerator
        if accelerator.num_processes > 1:
            # Batch norms have statistics of each process's own images; what is kept are the main one's.
            for buffer in self.kept_model.buffers():
                broadcast(buffer)
        shard = task.evaluate(self.kept_model, rank=accelerator.process_index, world_size=accelerator.num_processes)
        shards = gather_object([shard])
        progress.metrics = task.metrics(shards)
        for shard in shards:
            progress.skip(shard.skipped)
        progress.evaluated_step = progress.step
        self.log.write("val", progress.step, self.epoch, **progress.metrics)
        score = progress.metrics[task.main_metric]
        if progress.best is None or (score > progress.best if task.larger_is_better else score < progress.best):
            progress.best, progress.best_step = score, progress.step
            if self.main:
                self.run.save_weights(self.kept_model, self.run.best_file)
        self._read_clock()

    def save(self) -> None:
        """Writes the weights, and a state to resume from."""
        if self.main:
            self.run.save_weights(self.kept_model, self.run.weights_file)
        self.state.save(self.progress)

    def finish(self) -> dict[str, Any]:
        """Writes summary.json, and returns what it holds."""
        summary = self._summary()
        if self.main:
            write_json(self.run.summary_file, summary)
        self.accelerator.wait_for_everyone()
        return summary

    def not_finite(self, loss: float, norm: float, names: list[str]) -> RegardError:
        latest = self.state.latest
        kept = f"the last good checkpoint is {latest}" if latest else "there is no checkpoint yet"
        return RegardError(
            f"step {self.progress.step + 1}: the loss is {loss} and the gradient's norm {norm}, so the run stops; "
            f"{kept}; a lower train.lr often helps; {self.task.unit} of the batch: {first_few(names, 8)}"
        )

    def _read_clock(self) -> None:
        """The main process's clock, so that all processes stop at the same step."""
        seconds = time.monotonic() - self.started
        if self.accelerator.num_processes > 1:
            clock = torch.tensor(seconds, dtype=torch.float32, device=self.accelerator.device)
            seconds = float(broadcast(clock).item())
        self.progress.seconds = seconds

    def _summary(self) -> dict[str, Any]:
        progress, task = self.progress, self.task
        return {
            **progress.metrics,
            "best": {task.main_metric: progress.best, "step": progress.best_step},
            "seconds": round(progress.seconds, 2),
            "steps": progress.step,
            "epochs": progress.step / task.order(rank=0, world_size=1).steps_per_epoch,
            f"{task.unit}_per_second": round(progress.samples / max(progress.training_seconds, 1e-9), 1),
            f"skipped_{task.unit}": len(task.skipped) + len(set(gather_object(progress.skipped))),
            "peak_memory_mb": round(peak_memory_mb(self.accelerator.device), 1),
            "flops": task.flops(self.plain_model),
            "parameters": sum(parameter.numel() for parameter in self.plain_model.parameters()),
            "seed": self.recipe.seed,
            "processes": self.accelerator.num_processes,
            "versions": versions(),
            "machine": machine(),
        }


def _require_sound(task: Task, bar: Bar) -> None:
    """RegardError for data that would spoil the training; a warning for what may."""
    issues = task.check()
    errors = [f"{issue.where}: {issue.what}" for issue in issues if issue.severity == "error"]
    if errors:
        raise RegardError(first_of(errors, "more: see `regard data check`"))
    for issue in issues:
        bar.tell(f"warning: {issue.where}: {issue.what}")
