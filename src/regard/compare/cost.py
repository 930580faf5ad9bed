"""The cost of trained models: time, memory, energy and operations.

`measure_all` runs this file as a program once for each contender, and asks the processes in turn.
"""

import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regard.compare.contender import Cost
from regard.compare.operations import Operations, count
from regard.compare.processes import ProcessEndedError, Worker, busy_cores, serve
from regard.compare.spread import LEAST, latency_of, median_of
from regard.data import TrainingOrder
from regard.errors import RegardError
from regard.tasks import Classifier, Task, create_task
from regard.training import Run, load_predictor, memory_above_mb

BATCH_SIZE = 64
"""Of images; other samples are measured in batches of the recipe's size."""
REPETITIONS = 30
"""Rounds of measurements."""
SECONDS = 180.0
"""Rounds take no longer, but for the first six."""
SINGLES = 10
"""Samples that are timed alone in each round, so that there is a 99th percentile."""
# A model is warm when so many medians of three agree within 3%, or after so many seconds.
AGREEING, AGREEMENT, WARM_SECONDS = 5, 1.03, 2.0
ENERGY = Path("/sys/class/powercap")
"""Where Linux counts the energy of processors."""


def measure_all(
    runs: Mapping[str, Path],
    *,
    rounds: int | None = None,
    seconds: float = SECONDS,
    threads: int | None = None,
    seed: int = 0,
    failed: Callable[[str, RegardError], object] | None = None,
    progress: Callable[[float, str], object] | None = None,
) -> dict[str, Cost]:
    """What each contender costs: `runs` has a finished run of each, of any task. In the order of `runs`.

    Each is loaded in a process of its own; all are alive at once, and are measured in turn, in an order that is drawn
    anew in each round, so that what else happens on the machine meets all alike.

    rounds: `REPETITIONS` unless given. Where they take longer than `seconds`, there are fewer, though at least six, and
    each cost says how many. threads: of each process; as torch decides unless given. seed: of the order.
    failed: gets the name of a contender that cannot be measured, and why; without it the error is raised.
    progress: gets the part that is done, 0 to 1, and what is being done.
    """
    rounds, draw, load = rounds or REPETITIONS, random.Random(seed), busy_cores() if runs else None
    facts: dict[str, dict[str, Any]] = {}
    visits: dict[str, list[dict[str, Any]]] = {name: [] for name in runs}

    def ask(name: str, request: str) -> Any:
        """None if the contender cannot be measured; it is then asked no more."""
        try:
            return workers[name].ask(request)
        except ProcessEndedError as error:
            workers.pop(name).close()
            visits.pop(name)
            failure = RegardError(f"{runs[name]}: measuring its cost failed: {error}")
            if failed is None:
                raise failure from None
            failed(name, failure)
            return None

    def tell(part: float, words: str) -> None:
        if progress is not None:
            progress(part, words)

    with ExitStack() as stack:
        workers = {}
        for name, run in runs.items():
            arguments = [str(run), *([] if threads is None else [str(threads)])]
            workers[name] = Worker("regard.compare.cost", arguments)
            stack.callback(workers[name].close)
        for place, name in enumerate(runs):
            tell(0.4 * place / len(runs), f"of {name}: memory")
            found = ask(name, "facts")  # while the others load, which does not change memory and operations
            if found is not None:
                facts[name] = found
        for place, name in enumerate(list(visits)):
            tell(0.4 + 0.2 * place / len(visits), f"of {name}: warming up")
            ask(name, "warm")
        began, done = time.monotonic(), 0
        while done < rounds and (done < LEAST or time.monotonic() - began < seconds):
            tell(0.6 + 0.4 * done / rounds, f"round {done + 1} of {rounds}")
            for name in draw.sample(list(visits), len(visits)):
                found = ask(name, "visit")
                if found is not None:
                    visits[name].append(found)
            done += 1
    return {name: _cost(facts[name], visits[name], load) for name in runs if name in visits}


def measure(run: Path) -> Cost:
    """What one run's model costs, measured in a process of its own. RegardError where that fails."""
    return measure_all({run.name: run})[run.name]


def measure_here(run: Path) -> Cost:
    """As `measure`, in this process."""
    load, subject = busy_cores(), Subject(run)
    facts = subject.facts()
    subject.warm()
    return _cost(facts, [subject.visit() for _ in range(REPETITIONS)], load)


def _cost(facts: Mapping[str, Any], visits: list[dict[str, Any]], load: float | None) -> Cost:
    size = facts["batch_size"]
    inference = median_of([visit["inference"] for visit in visits])
    training = median_of([visit["training"] for visit in visits])
    energy = [visit["joules"] for visit in visits if visit["joules"] is not None]
    return Cost(
        seconds_per_sample=inference.median / size,
        peak_memory_mb=facts["training_mb"],
        batch_size=size,
        latency=latency_of([visit["singles"] for visit in visits]),
        throughput=inference.inverse(size),
        training=training.inverse(size),
        inference_memory_mb=facts["inference_mb"],
        energy_joules=median_of(energy).median / size if energy else None,
        flops=Operations(facts["formula"], facts["counted"], tuple(facts["uncounted"])),
        rounds=len(visits),
        load=load,
    )


class Subject:
    """A run's model, ready to be measured in this process."""

    def __init__(self, run: Path) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        predictor = load_predictor(run, device=self.device)
        self.model, found = predictor.model, Run.open(run)
        if isinstance(predictor, Classifier):
            self.single = _with_images(predictor, self.device, 1)[0]
            self.infer, loss, self.batch_size = _with_images(predictor, self.device)
        else:
            recipe = found.recipe()
            here = recipe.data.model_copy(update={"num_workers": 0})
            task = create_task(recipe.model_copy(update={"data": here}))
            self.single = _with_a_batch(task, self.model, self.device, 1)[0]
            self.infer, loss, self.batch_size = _with_a_batch(task, self.model, self.device)
        self.formula = found.summary()["flops"] if found.summary_file.exists() else None
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.0)  # the weights stay as they are

        def step() -> None:
            self.model.train()
            loss().backward()
            optimizer.step()
            optimizer.zero_grad()

        self.step = step

    def facts(self) -> dict[str, Any]:
        """What does not change from round to round."""
        self.model.eval()
        counted, uncounted = count(self.single)
        inference = memory_above_mb(self.infer, self.device)
        training = memory_above_mb(self.step, self.device)
        return {
            "batch_size": self.batch_size,
            "inference_mb": inference,
            "training_mb": training,
            "formula": self.formula or None,
            "counted": counted,
            "uncounted": uncounted,
        }

    def warm(self) -> bool:
        """Works until five medians agree within 3%; whether they did in time."""
        settled = [self._warm(work) for work in (self.single, self.infer, self.step)]
        return all(settled)

    def _warm(self, work: Callable[[], object]) -> bool:
        self.model.eval()
        medians: list[float] = []
        end = time.monotonic() + WARM_SECONDS
        while time.monotonic() < end:
            medians.append(median_of([self._time(work) for _ in range(3)]).median)
            last = medians[-AGREEING:]
            if len(last) == AGREEING and max(last) <= AGREEMENT * min(last):
                return True
        return False

    def visit(self) -> dict[str, Any]:
        """Seconds of each of a few samples alone, of a batch, and of a training step; the joules of the batch."""
        self.model.eval()
        self.single()  # others have worked meanwhile, and the processor's caches hold their data
        singles = [self._time(self.single) for _ in range(SINGLES)]
        before = joules()
        inference = self._time(self.infer)
        after = joules()
        used = None if before is None or after is None or after < before else after - before  # the counter wraps round
        return {"singles": singles, "inference": inference, "training": self._time(self.step), "joules": used}

    def _time(self, work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - start


# Inference on a batch, the loss on it, and how many samples it has.
Work = tuple[Callable[[], None], Callable[[], Tensor], int]


def _with_images(classifier: Classifier, device: torch.device, batch_size: int = BATCH_SIZE) -> Work:
    """On random images: their contents do not change the cost."""
    model, pre = classifier.model, classifier.preprocessing
    images = torch.randn(batch_size, pre.channels, *pre.img_size, device=device)

    def infer() -> None:
        with torch.no_grad():
            model(images)

    if not classifier.class_names:  # of a pre-training: features come out
        return infer, lambda: model(images).square().mean(), batch_size
    labels = torch.arange(batch_size, device=device) % len(classifier.class_names)
    return infer, lambda: F.cross_entropy(model(images), labels), batch_size


def _with_a_batch(task: Task, model: nn.Module, device: torch.device, batch_size: int | None = None) -> Work:
    """On the first training batch, since lengths of sequences matter; inference is the forward pass of the loss.

    batch_size: the recipe's unless given.
    """
    order = task.order(rank=0, world_size=1)
    if batch_size is not None:
        order = TrainingOrder(order.num_samples, batch_size, order.seed)
    batch = next(iter(task.training_loader(order))).to(device)
    with torch.no_grad(), _inputs_of(model) as inputs:
        task.loss(model, batch)

    def infer() -> None:
        with torch.no_grad():
            for positional, named in inputs:
                model(*positional, **named)

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


def joules() -> float | None:
    """What the processors have used so far, by their own counters; None where there are none, or not for us."""
    try:
        counters = [folder / "energy_uj" for folder in ENERGY.glob("intel-rapl:*") if folder.name.count(":") == 1]
        return sum(int(file.read_text(encoding="ascii")) for file in counters) / 1e6 if counters else None
    except (OSError, ValueError):
        return None


if __name__ == "__main__":
    if sys.argv[2:]:
        torch.set_num_threads(int(sys.argv[2]))
    subject = Subject(Path(sys.argv[1]))
    serve(lambda request: {"facts": subject.facts, "warm": subject.warm, "visit": subject.visit}[request]())
