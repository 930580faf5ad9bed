"""How fast trained models answer on this machine: eager, optimized, and as files in ONNX Runtime and OpenVINO.

Run: .venv/bin/python benchmarks/inference.py [--try] [--cases NAME ...] [--turns 15]
Peers are timm's eager float32 model (of DETR-R50 transformers'), and their own export, which is of a fixed batch. Each
contender has a process of its own; all are timed in turns. Weights are random. --try: two cases, few turns, not saved.
"""

import argparse
import logging
import os
import warnings
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from inference_worker import CASES, of_torch, peer_of
from peer import save
from regard.compare.processes import Worker
from regard.export.decide import LEAST_TURNS, Ratio, ratio
from regard.ops.precision import has_bf16

TURN_SECONDS, MOST_CALLS = 0.05, 50
# Ours against what it is held to, at the same precision.
AGAINST = (
    ("optimize fp32", "openvino fp32"),
    ("optimize bf16", "openvino bf16"),
    ("onnx fp32", "their onnx fp32"),
    ("openvino fp32", "their openvino fp32"),
    ("openvino bf16", "their openvino bf16"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--try", action="store_true", dest="tried")
    options = parser.parse_args()
    cases = ["digits ViT", "detr-small, 128 px"] if options.tried else options.cases
    rows = []
    for case in cases:
        with TemporaryDirectory() as folder:
            rows += timed(case, Path(folder), LEAST_TURNS if options.tried else options.turns, options.threads)
    if not options.tried:
        features = {"amx": torch.cpu._is_amx_tile_supported(), "avx512_bf16": torch.cpu._is_avx512_bf16_supported()}
        results = {"threads": options.threads, "turns": options.turns, "features": features, "rows": rows}
        print(f"saved to {save('inference', results, ('timm', 'transformers', 'onnxruntime', 'openvino'))}")


def timed(case: str, folder: Path, turns: int, threads: int) -> list[dict[str, Any]]:
    """A row for each batch of a case."""
    batches, processes = CASES[case][4], {}
    try:
        for name, engine, precision, files in contenders(case, folder):
            wanted = {"case": case, "engine": engine, "precision": precision, "files": files}
            processes[name] = started({**wanted, "batches": batches}, threads)
        return [row(case, batch, turns_of(processes, place, turns)) for place, batch in enumerate(batches)]
    finally:
        for process in processes.values():
            process.close()


def turns_of(processes: dict[str, Worker], place: int, turns: int) -> dict[str, list[float]]:
    calls = {}
    for name, process in processes.items():
        process.ask([place, 2])
        calls[name] = min(max(round(TURN_SECONDS / process.ask([place, 1])), 1), MOST_CALLS)
    seconds: dict[str, list[float]] = {name: [] for name in processes}
    for turn in range(turns):
        for name in list(processes)[:: 1 if turn % 2 == 0 else -1]:
            seconds[name].append(processes[name].ask([place, calls[name]]))
    return seconds


def row(case: str, batch: int, seconds: dict[str, list[float]]) -> dict[str, Any]:
    first = next(iter(seconds))
    found = {
        "case": case,
        "batch": batch,
        "peer": first,
        "median_ms": {name: _rounded(1e3 * median(own)) for name, own in seconds.items()},
        "best_ms": {name: _rounded(1e3 * min(own)) for name, own in seconds.items()},
        "times_as_fast": {name: _plain(ratio(own, seconds[first])) for name, own in seconds.items()},
        "against": {
            f"{ours} / {theirs}": {
                **_plain(ratio(seconds[ours], seconds[theirs])),
                "by_best": _rounded(min(seconds[theirs]) / min(seconds[ours])),
            }
            for ours, theirs in AGAINST
            if ours in seconds and theirs in seconds
        },
    }
    print(f"{case}, batch of {batch}: " + ", ".join(f"{name} {ms} ms" for name, ms in found["median_ms"].items()))
    return found


def _plain(found: Ratio) -> dict[str, float]:
    return {"median": _rounded(found.value), "low": _rounded(found.low), "high": _rounded(found.high)}


def _rounded(number: float) -> float:
    return float(f"{number:.4g}")


def contenders(case: str, folder: Path) -> list[tuple[str, str, str, list[str]]]:
    """(name, engine, precision, files: one a batch), the peer first."""
    _, theirs, _, _, batches = CASES[case]
    bf16 = has_bf16(torch.device("cpu"))
    precisions = ["fp32", *(["bf16"] if bf16 else [])]
    is_vit = "detr" not in CASES[case][0]
    found: list[tuple[str, str, str, list[str]]] = []
    if theirs is not None:
        found.append(("transformers fp32" if theirs == "detr" else "timm fp32", "peer", "fp32", []))
    found.append(("eager fp32", "eager", "fp32", []))
    found += [(f"optimize {one}", "optimize", one, []) for one in precisions if is_vit or one == "fp32"]
    onnx, ir = own_files(case, folder)
    found.append(("onnx fp32", "onnx", "fp32", [onnx] * len(batches)))
    found += [(f"openvino {one}", "openvino", one, [ir] * len(batches)) for one in precisions]
    if theirs is not None:
        files = their_files(case, folder)
        found.append(("their onnx fp32", "onnx", "fp32", files))
        found += [(f"their openvino {one}", "openvino", one, files) for one in precisions]
    return found


def own_files(case: str, folder: Path) -> tuple[str, str]:
    """The files of `regard export --pixels float`, for ONNX Runtime and OpenVINO; of a free batch."""
    from regard.data import DetectionPreprocessing, Preprocessing
    from regard.export.write import make, with_size, write
    from regard.tasks import Classifier, Detector

    _, _, size, channels, _ = CASES[case]
    model, plain = of_torch(case, "eager"), ((0.5,) * channels, (0.5,) * channels)
    names = [str(number) for number in range(model.config.num_classes)]
    if "detr" in CASES[case][0]:
        boxes = DetectionPreprocessing(size, 2 * size, channels, *plain)
        predictor: Any = Detector(model, names, range(len(names)), boxes)
    else:
        predictor = Classifier(model, names, Preprocessing((size, size), channels, *plain, "bicubic", 1.0))
    made = make(*with_size(predictor, None), pixels="float")
    for to, name in (("onnx", "ours.onnx"), ("openvino", "ours.xml")):
        write(made, folder / name, to)
    return str(folder / "ours.onnx"), str(folder / "ours.xml")


def their_files(case: str, folder: Path) -> list[str]:
    """What torch.onnx.export makes of the peer's model, for each batch."""
    _, _, size, channels, batches = CASES[case]
    files, model = [], peer_of(case)
    for batch in batches:
        file = folder / f"theirs-{batch}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(model, (torch.rand(batch, channels, size, size),), file, dynamo=True, verbose=False)
        files.append(str(file))
    return files


def started(wanted: dict[str, Any], threads: int) -> Worker:
    """A contender's process, which knows what it is to be."""
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    worker = Worker("inference_worker", environment={"OMP_NUM_THREADS": str(threads), "PYTHONPATH": path})
    worker.ask({**wanted, "threads": threads})
    return worker


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main()
