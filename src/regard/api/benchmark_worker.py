"""One contender of `regard benchmark`, in a process of its own: it loads, answers once, and times itself when asked.

Lines of JSON come in on stdin and go out on stdout. The first one says what to be; each other asks for one time.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Answer = Callable[[], object]


def main() -> None:
    """{"seconds": ...} or {"memory_mb": ...} for each line that asks; {"error": ...} where there is no contender."""
    talk = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer

    def say(**values: Any) -> None:
        talk.write(json.dumps(values) + "\n")
        talk.flush()

    from regard.errors import RegardError

    try:
        answers = contender(json.loads(sys.stdin.readline()))
        answers[0]()
    except RegardError as error:
        say(error=str(error))
        return
    say(ready=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "batch" in asked:
            say(seconds=seconds_of(answers[asked["batch"]], asked["calls"]))
        else:
            say(memory_mb=peak_mb())


def seconds_of(answer: Answer, calls: int) -> float:
    """The median of some calls, after one that is not counted: others have run since the last time."""
    answer()
    found = []
    for _ in range(calls):
        began = time.perf_counter()
        answer()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def contender(wanted: Mapping[str, Any]) -> list[Answer]:
    """How to answer once, for each size of batch.

    wanted: `source` (a run, or a file), its `engine` ("torch", "optimize", or "file"), `precision`, `weights`,
    `threads`, `batches`, and `images`: files to answer from end to end, or none, and then prepared pixels are answered.
    """
    import torch

    torch.set_num_threads(wanted["threads"])
    predictor = predictor_of(wanted)
    if wanted["images"]:
        return [_from_files(predictor, (wanted["images"] * count)[:count]) for count in wanted["batches"]]
    return [_from_pixels(predictor, count) for count in wanted["batches"]]


def predictor_of(wanted: Mapping[str, Any]) -> Any:
    """The predictor as `regard predict` uses it."""
    from regard.api.runs import load
    from regard.export import load_exported
    from regard.tasks import Detector

    if wanted["engine"] == "file":
        return load_exported(Path(wanted["source"]), threads=wanted["threads"])
    predictor: Any = load(wanted["source"], weights=wanted["weights"], device="cpu")
    if wanted["engine"] == "optimize":
        from regard.export.optimize import optimize

        return optimize(predictor, wanted["precision"])
    return predictor.fused() if isinstance(predictor, Detector) else predictor


def _from_files(predictor: Any, files: list[str]) -> Answer:
    return lambda: predictor.predict(files, batch_size=len(files))


def _from_pixels(predictor: Any, count: int) -> Answer:
    """Of prepared pixels: those of a file as it takes them, since normalisation is in its graph."""
    import torch

    from regard.export import EngineModel
    from regard.export.random_images import random_images

    model, images = predictor.model, random_images(predictor, count)
    if isinstance(model, EngineModel) and model.batch in (None, count):
        pixels = model.pixels(images)
        return lambda: model.engine.run(pixels)

    def answer() -> object:
        with torch.inference_mode():
            return model(images)

    return answer


def peak_mb() -> float:
    """The most memory that this process has held. The system's own count begins with that of its parent."""
    status = Path("/proc/self/status")
    if status.is_file():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) / 2**10
    import torch

    from regard.training.machine import peak_memory_mb

    return peak_memory_mb(torch.device("cpu"))


if __name__ == "__main__":
    main()
