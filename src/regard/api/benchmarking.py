"""`regard.benchmark`: which engine answers fastest on this machine, each in a process of its own, timed in turns."""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from regard.api.benchmark_plan import Contender, Plan
from regard.api.benchmark_process import Process
from regard.errors import RegardError, shown

if TYPE_CHECKING:
    from regard.export.decide import Verdict

TURN_SECONDS = 0.03
"""What a contender is timed for in each turn, at least."""
MOST_CALLS = 100


@dataclass
class Benchmark:
    """What `benchmark` measured; `sentence` says which contender to use on this machine."""

    contenders: list[Contender]
    verdicts: "dict[int, Verdict]"
    """By the size of the batch."""
    threads: int
    turns: int
    end_to_end: bool
    images_are: str
    """What the scores are of: "held-out" images, "training" ones, "no", or the data address that was given."""
    machine: dict[str, str | int]
    warnings: list[str]

    @property
    def sentence(self) -> str:
        """Use this one here; or that it cannot be told."""
        said: dict[str, list[int]] = {}
        for batch, verdict in self.verdicts.items():
            said.setdefault(_said(verdict.alike), []).append(batch)
        if len(said) == 1:
            return f"{next(iter(said))} on this machine"
        parts = [f"for a batch of {' or '.join(map(str, batches))} {text}" for text, batches in said.items()]
        return f"{'; '.join(parts)} (on this machine)"

    def to_dict(self) -> dict[str, Any]:
        rows = [asdict(one) for one in self.contenders]
        verdicts = {batch: {"use": one.use, "alike": list(one.alike)} for batch, one in self.verdicts.items()}
        own = {key: value for key, value in vars(self).items() if key not in ("contenders", "verdicts")}
        return {"contenders": rows, "verdicts": verdicts, "sentence": self.sentence, **own}


def _said(alike: Sequence[str]) -> str:
    if len(alike) == 1:
        return f"use {alike[0]}"
    return f"cannot tell between {', '.join(alike[:-1])} and {alike[-1]}"


def benchmark(
    sources: str | Path | Iterable[str | Path],
    *,
    engines: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    batches: Sequence[int] = (1,),
    threads: int | None = None,
    turns: int = 15,
    end_to_end: bool = False,
    accuracy: bool = True,
    data: str | None = None,
    weights: str = "model",
    progress: Callable[[str], object] = lambda said: None,
) -> Benchmark:
    """Times runs and exported files on this machine's CPU, and says which one to use, or that it cannot be told.

    sources: runs, each in every engine and precision, and files of `export_model`. engines: "torch", "optimize",
    "onnx", "openvino"; those that are installed unless given. precisions: "fp32" and, where the processor has
    instructions for it, "bf16". A run's files are temporary, and are verified as those of `export_model` are.
    Each contender has a process of its own. In each of `turns` turns all are timed once, warm, in an order that
    alternates. The best is told from another where the interval of 95% of the ratio of their times is beyond 1.02.
    batches: images at once. threads: of each contender; PyTorch's number unless given.
    end_to_end: from image files to answers; otherwise from prepared pixels to the model's output.
    accuracy: whether to measure it too, on the images that the run held out, or on `data`.
    progress: is told what is done next. RegardError for an unknown or missing engine, for what is neither a run of
    images nor a file, and where no contender could be timed.
    """
    import torch

    from regard.export.decide import LEAST_TURNS
    from regard.training import machine

    named = [str(one) for one in ([sources] if isinstance(sources, str | Path) else sources)]
    _require_number("--turns", turns, LEAST_TURNS)
    for batch in batches:
        _require_number("--batch", batch, 1)
    if threads is not None:
        _require_number("--threads", threads, 1)
    if not named or not batches:
        raise RegardError("benchmark: name a run or an exported file, and the size of a batch")
    load_before = _load_average()
    threads = threads or torch.get_num_threads()
    with TemporaryDirectory(prefix="regard-benchmark-") as folder:
        plan = Plan(Path(folder), precisions, engines, weights, data, accuracy, len(named) > 1, progress)
        for source in named:
            plan.add(source)
        images = plan.image_files(max(batches)) if end_to_end else []
        times = _timed(plan.contenders, tuple(dict.fromkeys(batches)), threads, turns, images, weights, progress)
    found = Benchmark(plan.contenders, {}, threads, turns, end_to_end, plan.images_are, machine(), plan.warnings)
    _compare(found, times)
    others = max(load_before, _load_average() - threads)
    if others + threads > (os.cpu_count() or 1) + 0.5:
        found.warnings.insert(
            0,
            f"the machine is busy (load average {others:.1f} without the benchmark): times are longer and less certain "
            "than on an idle one",
        )
    return found


def _require_number(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 4096:
        raise RegardError(f"{name} {shown(value)}: must be a number from {least} to 4096")


def _load_average() -> float:
    """Programs that ran or waited in the last minute; 0 where the system does not count them."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _timed(
    contenders: Sequence[Contender],
    batches: Sequence[int],
    threads: int,
    turns: int,
    images: Sequence[str],
    weights: str,
    progress: Callable[[str], object],
) -> dict[int, dict[str, list[float]]]:
    """Batch -> contender -> seconds of an image in each turn. Fills in the first answer and the memory."""
    processes: dict[str, Process] = {}
    times: dict[int, dict[str, list[float]]] = {batch: {} for batch in batches}
    try:
        for own in contenders:
            if own.fault is not None:
                continue
            progress(f"{own.name}: starts")
            wanted = {
                "source": own.file or own.source,
                "engine": own.engine if own.file is None else "file",
                "precision": own.precision,
                "weights": weights,
                "threads": threads,
                "batches": batches,
                "images": images,
            }
            try:
                process = Process(own.name, wanted, threads)
            except RegardError as error:
                own.fault = str(error)
                continue
            processes[own.name], own.first_answer_seconds = process, process.first_answer_seconds
        if not processes:
            raise RegardError(f"benchmark: nothing could be timed: {contenders[0].fault}")
        for place, batch in enumerate(batches):
            progress(f"a batch of {batch}: {turns} turns")
            calls = {name: _calls(process, place) for name, process in processes.items()}
            times[batch] = {name: [] for name in processes}
            for turn in range(turns):
                for name in list(processes)[:: 1 if turn % 2 == 0 else -1]:
                    times[batch][name].append(processes[name].seconds(place, calls[name]) / batch)
        for own in contenders:
            if own.name in processes:
                own.memory_mb = processes[own.name].memory_mb()
    finally:
        for process in processes.values():
            process.end()
    return times


def _calls(process: Process, place: int) -> int:
    return min(max(math.ceil(TURN_SECONDS / max(process.seconds(place, 1), 1e-9)), 1), MOST_CALLS)


def _compare(found: Benchmark, times: Mapping[int, Mapping[str, Sequence[float]]]) -> None:
    """Fills in times, ratios to the first contender, and which one to use."""
    from statistics import median

    from regard.export.decide import decide, ratio

    for batch, turns in times.items():
        first = next(iter(turns.values()))
        for own in found.contenders:
            if own.name in turns:
                own.milliseconds[batch] = 1000 * median(turns[own.name])
                own.times_as_fast[batch] = ratio(turns[own.name], first)
        found.verdicts[batch] = decide(turns)
