"""What a trained model costs. `measure` runs this file as a program, in a process of its own."""

import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F

from regard.compare.contender import Cost
from regard.errors import RegardError
from regard.training import load_classifier, memory_above_mb

BATCH_SIZE = 64
REPETITIONS = 15


def measure(run: Path) -> Cost:
    """Time of inference and memory of a training step for the model of a run, in a process that does nothing else."""
    command = [sys.executable, "-m", "regard.compare.cost", str(run)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RegardError(f"{run}: measuring its cost failed: {result.stderr.strip().splitlines()[-1:]}")
    return Cost(**json.loads(result.stdout))


def measure_here(run: Path) -> Cost:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    classifier = load_classifier(run, device=device)
    model, pre = classifier.model, classifier.preprocessing
    images = torch.randn(BATCH_SIZE, pre.channels, *pre.img_size, device=device)
    labels = torch.arange(BATCH_SIZE, device=device) % len(classifier.class_names)

    def infer() -> None:
        with torch.inference_mode():
            model(images).sum().item()  # waits for the device

    for _ in range(3):
        infer()
    seconds = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        infer()
        seconds.append(time.perf_counter() - start)

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    model.train()

    def step() -> None:
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    memory = memory_above_mb(step, device)
    return Cost(statistics.median(seconds) / BATCH_SIZE, memory, BATCH_SIZE)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(measure_here(Path(sys.argv[1])))))
