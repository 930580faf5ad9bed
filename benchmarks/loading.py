"""Is data loading a bottleneck? Microseconds an image of loading, beside those of the training step that it feeds.

Run: .venv/bin/python benchmarks/loading.py
"""

import statistics
import time

import torch

from peer import save
from regard.recipes import load_recipe
from regard.tasks import create_task

STEPS = 60


def main() -> None:
    recipe = load_recipe("vit-digits")
    task = create_task(recipe)
    model = task.build_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    loading, training = [], []
    batches = iter(task.training_loader(task.order(rank=0, world_size=1)))
    for _ in range(STEPS):
        start = time.perf_counter()
        batch = next(batches)
        loaded = time.perf_counter()
        task.loss(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
        done = time.perf_counter()
        loading.append((loaded - start) / len(batch) * 1e6)
        training.append((done - loaded) / len(batch) * 1e6)
    figures = {"loading": statistics.median(loading[5:]), "training_step": statistics.median(training[5:])}
    share = figures["loading"] / sum(figures.values())
    print(
        f"digits: {figures['loading']:.0f} µs an image to load, {figures['training_step']:.0f} to train ({share:.0%})"
    )
    print(f"saved to {save('loading', {'data': 'digits', 'microseconds_an_image': figures, 'share': share})}")


if __name__ == "__main__":
    main()
