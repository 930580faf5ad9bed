"""What a training carries from step to step, and everything around a step that is no mathematics."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object
from torch import nn

from regard.data import fingerprint, seed_for
from regard.errors import RegardError, first_few
from regard.files import remove_leftovers, write_json
from regard.mixers import redraw_features
from regard.recipes import Recipe
from regard.tasks import create_task, first_words
from regard.training.agreement import on_main
from regard.training.budget import Budget, learning_rate, leaves_time_to_train
from regard.training.machine import (
    compile_native,
    has_bf16,
    machine,
    peak_memory_mb,
    require_workers,
    seconds_of,
    versions,
)
from regard.training.metrics_log import MetricsLog
from regard.training.nan_watch import Diverged, watch_finite
from regard.training.optim import create_average, create_optimizer, set_learning_rate
from regard.training.origin import Origin, listed, require_sound
from regard.training.progress import Bar
from regard.training.run import Run
from regard.training.state import ORIGIN, Progress, State, read_progress
from regard.training.whole_json import with_checksum
from regard.weights import read_safetensors


class Session:
    """The accelerator, run folder, task, model, average, optimiser, budget, state and log of one training.

    Opening it reads the data, builds the model, and makes the run folder or loads its last state. `compared`: as
    `train` with `tested`.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        accelerator: Accelerator,
        *,
        resume: bool,
        bar: Bar | None,
        compared: bool = False,
    ) -> None:
        self.recipe, options = recipe, recipe.train
        self.compared = compared
        self.shards: list[Any] | None = None
        """Of the last evaluation."""
        self.accelerator = accelerator
        self.rank, self.world_size = accelerator.process_index, accelerator.num_processes
        self.main = main = accelerator.is_main_process
        self.run = run = Run.open(folder) if resume else Run(folder)
        self.bar = bar or Bar(visible=main).part(0, folder.name)
        found = self._found() if resume else None
        self.task = task = create_task(recipe)
        task.progress = self.bar
        self.recipe = recipe = task.recipe  # with the names of the weights, where it said `auto`
        require_workers(recipe.data.num_workers)
        issues = require_sound(task, self.bar)
        order = task.order(rank=self.rank, world_size=self.world_size)
        self.steps_per_epoch = order.steps_per_epoch
        self.half = options.precision == "bf16" or (options.precision == "auto" and has_bf16(accelerator.device))
        self.budget, self.embed_dim = Budget.of(options, order.steps_per_epoch), recipe.model.config().embed_dim

        torch.manual_seed(recipe.seed)
        self.plain_model: nn.Module = task.build_model()
        self.average = None
        if options.ema_decay:
            self.average = create_average(self.plain_model, options.ema_decay).to(accelerator.device)
        self.model, self.optimizer = accelerator.prepare(self.plain_model, create_optimizer(self.plain_model, options))
        self.kept_model: nn.Module = self.plain_model if self.average is None else self.average.module

        self.state = State(run.path, accelerator, self.average, tell=self.bar.tell)
        self.origin = on_main(accelerator, lambda: self._settle(found))
        self.state.run_id, self.state.write_origin = self.origin.run_id, self.origin.write
        accelerator.wait_for_everyone()
        if options.find_nonfinite:
            watch_finite(self.plain_model)
        self.progress = Progress() if found is None else self.state.load(found)
        # A comparison trains many times on the same data.
        self._first_words = first_words(task, issues) if bar is None and not resume else ()
        if task.features_first:
            self._say_first_words()
        order.start_step = self.progress.step
        self._started = time.monotonic() - self.progress.seconds
        self._batches = iter(task.training_loader(order))  # it computes features, which the budget covers
        if task.features_first:  # also those of more views, with which the winner of a race goes on
            seconds = self._agreed_seconds()
            self.progress.prepared_seconds += seconds - self.progress.seconds
            self.progress.seconds = seconds
            if found is None and not compared:
                self._require_time_to_train()
        if compared:
            self.progress.compile_seconds += seconds_of(lambda: compile_native(self.plain_model))
        self._step_started, self.rate = 0.0, 0.0
        if main and not self.over:
            run.summary_file.unlink(missing_ok=True)  # of a shorter budget
        self.log = MetricsLog(run, self.progress.step, main=main, tell=self.bar.tell)

    def _found(self) -> Path | None:
        """The state to resume from, whose recipe is this one."""
        run = self.run
        state = State(run.path, self.accelerator, None, run_id=run.id(), tell=self.bar.tell)
        found = state.find(begun=run.weights_file.exists() or run.summary_file.exists())
        if found is not None and (found / ORIGIN).exists():
            Origin.read(found / ORIGIN, run.id()).require_same_recipe(self.recipe, found)
        return found

    def _settle(self, found: Path | None) -> Origin:
        """Begins a run, or makes sure that the data of the one to resume are those that it was trained on."""
        run, recipe, data = self.run, self.recipe, fingerprint(self.task.data)
        if found is None:
            parts = {name: {"samples": part.samples, "digest": part.digest} for name, part in data.parts.items()}
            run.create(recipe, {**self.task.metadata(), "data": parts, "versions": versions()})
            return Origin(recipe, data, run.id())
        remove_leftovers(run.path)
        remove_leftovers(run.path / "state")
        kept = recipe.model_copy(
            update={"train": recipe.train.model_copy(update={"device": run.recipe().train.device})}
        )
        if not (found / ORIGIN).exists():
            self.bar.tell(
                f"warning: {run.path}: was begun by an older version, so that its data and recipe cannot be compared "
                "with those of before"
            )
            before = Origin(run.recipe(), data)
        else:
            before = Origin.read(found / ORIGIN, run.id())
            before.require_same_data(data, recipe.data.address, run.path)
        changes = before.changes(recipe)
        origin = Origin(kept, data, run.id())
        if changes:
            self.bar.tell(f"from now on: {listed(changes)}")
        if changes or before.changes(run.recipe()):
            if (found / ORIGIN).exists():
                origin.write(found / ORIGIN)
            run.write_recipe(kept)
        self._check_best(found)
        return origin

    def _check_best(self, found: Path) -> None:
        """RegardError for best weights that are damaged, or of another run: they cannot be made again."""
        if read_progress(found, self.run.id(), with_files=False).best is None:
            return
        if not self.run.best_file.exists():
            self.bar.tell(f"warning: {self.run.best_file}: is gone; the next evaluation that is better writes it")
            return
        self.run.require_own(self.run.best_file)
        read_safetensors(self.run.best_file)

    @property
    def over(self) -> bool:
        """Whether the budget is spent, or `train.patience`."""
        return self._spent(self.progress.step) >= 1 or self.gave_up

    @property
    def _patience(self) -> int | None:
        """`train.patience`, which tasks with images have."""
        return getattr(self.recipe.train, "patience", None)

    @property
    def gave_up(self) -> bool:
        return self._patience is not None and self.progress.without_gain >= self._patience

    def _require_time_to_train(self) -> None:
        """RegardError where the features took all of the time."""
        took, limit = self.progress.prepared_seconds, self.budget.max_seconds
        if limit is not None and took >= limit:
            raise RegardError(
                f"{self.run.path}: the features took {took / 60:.1f} minutes, and train.max_minutes is {limit / 60:g}; "
                f"they are kept: `regard train --resume {self.run.path}` begins with them"
            )

    def _spent(self, step: float | int, *, since: float = 0.0) -> float:
        """The spent fraction of the budget; its time has to do for the evaluation at the end, too, if not compared."""
        if self.compared:
            return self.budget.spent(step, self.progress.training_seconds)
        reserved = self.progress.last_evaluation_seconds
        return self.budget.spent(step, self.progress.seconds + reserved, since=since)

    def begin_step(self) -> list[Any]:
        """Sets the learning rate and the seed of the coming step, and returns its micro-batches."""
        self._step_started = time.monotonic()
        options, progress = self.recipe.train, self.progress
        # The middle of the coming step: with a budget in steps, neither the first nor the last has a rate of zero.
        spent = self._spent(progress.step + 0.5, since=progress.prepared_seconds)
        self.rate = learning_rate(options, spent, step=progress.step + 1, embed_dim=self.embed_dim)
        set_learning_rate(self.optimizer, self.rate)
        torch.manual_seed(seed_for(self.recipe.seed, progress.step, self.rank))
        redraw_features(self.plain_model, progress.step)

        micro_batches = [next(self._batches) for _ in range(options.accumulate)]
        for batch in micro_batches:
            progress.skipped += [name for name in batch.skipped if name not in progress.skipped]
            if not batch.names:
                raise RegardError(f"step {progress.step + 1}: nothing in the batch can be read: {batch.skipped}")
        return micro_batches

    def end_step(self, samples: int, loss: float, norm: float) -> None:
        """Counts and logs the step; evaluates and saves if it ends a period."""
        options, progress = self.recipe.train, self.progress
        progress.step += 1
        progress.samples += samples * self.world_size
        progress.training_seconds += time.monotonic() - self._step_started
        progress.seconds = self._agreed_seconds()
        epoch = progress.step / self.steps_per_epoch
        self.log.write("train", progress.step, epoch, loss=loss, lr=self.rate, grad_norm=norm)
        self._say_first_words()

        ends_epoch = progress.step % self.steps_per_epoch == 0
        if _due(options.evaluate_every_steps, progress.step, ends_epoch and self._evaluates_epoch(round(epoch))):
            self.validate() if self.compared and self._patience is not None else self.evaluate()
        if _due(options.save_every_steps, progress.step, ends_epoch):
            self.save()
        score = progress.metrics.get(self.task.main_metric)
        reported = "" if score is None else f", {self.task.main_metric} {score:.3f}"
        spent = self._spent(progress.step)
        speed = f"{self.samples_per_second:.3g} {self.task.unit}/s"
        self.bar.update(spent, f"epoch {epoch:.1f}, loss {loss:.3f}{reported}, {speed}")

    def _say_first_words(self) -> None:
        """What the data are like: before features are computed, or when a step has shown that the model takes them."""
        for line in self._first_words:
            self.bar.tell(line)
        self._first_words = ()

    @property
    def samples_per_second(self) -> float:
        """Of the steps alone: reading and training, without evaluations and saving."""
        return self.progress.samples / max(self.progress.training_seconds, 1e-9)

    def _evaluates_epoch(self, number: int) -> bool:
        """Whether there is an evaluation after so many epochs. Nothing that is trained depends on it."""
        every, progress = self.recipe.train.evaluate_every, self.progress
        if every is not None:
            return number % every == 0
        if self.compared:  # what is reported is looked at once
            return self._patience is not None and self.recipe.train.evaluate_every_steps is None
        return leaves_time_to_train(progress.seconds, progress.evaluation_seconds, progress.last_evaluation_seconds)

    def evaluate(self) -> None:
        """Evaluates the kept weights on all processes; keeps them apart if they are the best so far."""
        task, progress = self.task, self.progress
        began = self._agreed_seconds()
        self._agree_on_buffers()
        shards = gather_object([task.evaluate(self.kept_model, rank=self.rank, world_size=self.world_size)])
        self.shards = shards
        progress.metrics, progress.details = task.metrics(shards), task.details(shards)
        for shard in shards:
            progress.skipped += [name for name in shard.skipped if name not in progress.skipped]
        progress.evaluated_step = progress.step
        self.log.write("val", progress.step, progress.step / self.steps_per_epoch, **progress.metrics)
        score = progress.metrics[task.main_metric]
        better = progress.best is None or (score > progress.best if task.larger_is_better else score < progress.best)
        if better and math.isfinite(score):
            progress.best, progress.best_step = score, progress.step
            if self.main:
                self.run.save_weights(task.whole(self.kept_model), self.run.best_file)
        if self._patience is not None:
            self._count_gain()
        self._end_evaluation(began)

    def validate(self) -> None:
        """Measures `data.selection` alone, for `train.patience`: the held-out part is for the end."""
        began = self._agreed_seconds()
        score = self._count_gain()
        figures = {self.task.main_metric: score, "loss": math.nan}
        self.log.write("val", self.progress.step, self.progress.step / self.steps_per_epoch, **figures)
        self._end_evaluation(began)

    def _end_evaluation(self, began: float) -> None:
        progress = self.progress
        progress.seconds = self._agreed_seconds()
        progress.last_evaluation_seconds = progress.seconds - began
        progress.evaluation_seconds += progress.last_evaluation_seconds

    def select(self) -> float:
        """The main metric of the kept weights on the images of `data.selection`. Each process measures all of them."""
        self._agree_on_buffers()
        return self.task.select(self.kept_model)

    def _count_gain(self) -> float:
        score, best = self.select(), self.progress.selected
        if best is None or (score > best if self.task.larger_is_better else score < best):
            self.progress.selected, self.progress.without_gain = score, 0
        else:
            self.progress.without_gain += 1
        return score

    def end(self) -> None:
        """After the last step: what the task measures on the trained model, and the last evaluation and state.

        Metadata that hold what was measured come last, so that a run that is killed meanwhile does all of this again.
        """
        if self.gave_up:
            times = f"{self.progress.without_gain} evaluations"
            self.bar.tell(f"train.patience: no gain in {times}, so the training ends at step {self.progress.step}")
        self._agree_on_buffers()
        measured = self.task.finish(self.kept_model, self.bar.tell)
        known = on_main(self.accelerator, self.run.metadata) if measured else {}
        is_new = any(known.get(key) != value for key, value in measured.items())
        unseen = self.compared and self.shards is None  # evaluated before the run was interrupted
        if is_new or unseen or self.progress.evaluated_step != self.progress.step:
            self.evaluate()
        self.save()
        if is_new and self.main:
            self.run.add_metadata(measured)

    def _agree_on_buffers(self) -> None:
        """Batch norms have statistics of each process's own images; those of the main process are kept."""
        if self.world_size > 1:
            for buffer in self.kept_model.buffers():
                broadcast(buffer)

    def save(self) -> None:
        """Writes the kept weights, and a state to resume from."""
        self.progress.saving_seconds += seconds_of(self._save)

    def _save(self) -> None:
        if self.main:
            self.state.make_folder()  # first: weights without it mean that the states are gone
            self.run.save_weights(self.task.whole(self.kept_model), self.run.weights_file)
        self.state.save(self.progress)

    def finish(self) -> dict[str, Any]:
        """Writes summary.json and returns what it holds."""
        summary = with_checksum(self._summary())
        if self.main:
            write_json(self.run.summary_file, summary)
        self.accelerator.wait_for_everyone()
        return summary

    def mean_over_processes(self, number: int) -> float:
        accelerator = self.accelerator
        if accelerator.num_processes == 1:
            return float(number)
        mean = accelerator.reduce(torch.tensor(float(number), device=accelerator.device), "mean")
        return float(mean.item())

    def not_finite(self, loss: float, norm: float, names: list[str]) -> RegardError:
        """The error for the coming step, whose loss or gradient is not finite; `names` are its samples."""
        state = self.state
        kept = f"the last good checkpoint is {state.latest}" if state.latest else "there is no checkpoint yet"
        return Diverged(
            self.progress.step + 1,
            f"the loss is {loss} and the gradient's norm {norm}, so the run stops; {kept}; a lower train.lr often "
            f"helps; {self.task.unit} of the batch: {first_few(names, 8)}",
        )

    def _agreed_seconds(self) -> float:
        """Seconds since the start by the main process's clock, so that all processes stop at the same step."""
        seconds = time.monotonic() - self._started
        if self.accelerator.num_processes == 1:
            return seconds
        clock = torch.tensor(seconds, dtype=torch.float32, device=self.accelerator.device)
        return float(broadcast(clock).item())

    def _summary(self) -> dict[str, Any]:
        task, progress, accelerator = self.task, self.progress, self.accelerator
        whole = task.whole(self.plain_model)
        return {
            **progress.metrics,
            "best": {task.main_metric: progress.best, "step": progress.best_step},
            "seconds": round(progress.seconds, 2),
            "steps": progress.step,
            "epochs": progress.step / task.order(rank=0, world_size=1).steps_per_epoch,
            f"{task.unit}_per_second": round(self.samples_per_second, 1),
            f"skipped_{task.unit}": len(task.skipped) + len(set(gather_object(progress.skipped))),
            "peak_memory_mb": round(peak_memory_mb(accelerator.device), 1),
            "flops": task.flops(whole),
            "parameters": sum(parameter.numel() for parameter in whole.parameters()),
            "seed": self.recipe.seed,
            "processes": accelerator.num_processes,
            "versions": versions(),
            "machine": machine(),
            **progress.details,
        }


def _due(every_steps: int | None, step: int, otherwise: bool) -> bool:
    """Whether a step ends a period: one that is counted in steps, or else by epochs."""
    return otherwise if every_steps is None else step % every_steps == 0
