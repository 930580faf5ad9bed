"""What a user writes: test_wheel.py has mypy and pyright look at it, beside the wheel."""

from pathlib import Path

import numpy as np
import torch

import regard
from regard import RegardError
from regard.explain import rows
from regard.mixers import MIXERS
from regard.models import ViT, ViTConfig
from regard.ops import attention
from regard.recipes import load_recipe
from regard.tasks import Classifier, Detections, Detector


def boxes(photographs: list[Path]) -> list[Detections]:
    """A training by recipe; what it finds in each photograph."""
    recipe = load_recipe("detr-small", ["train.epochs=2"])
    assert recipe.train.epochs == 2
    detector = regard.train("detr-small", data="digit-scenes", out=Path("runs/a"), minutes=10)
    assert isinstance(detector, Detector)
    found = detector.predict(photographs, threshold=0.5)
    found[0].above(0.9).draw().save("drawn.png")
    first: Detections = detector.predict(photographs[0])
    return [first, *found]


def label(run: Path, pixels: "np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]") -> tuple[str, float]:
    """A run's answer for pixels in memory."""
    try:
        classifier = regard.load(run, device="cpu")
    except RegardError as error:
        raise SystemExit(str(error)) from None
    assert isinstance(classifier, Classifier)
    answer = classifier.predict(pixels)
    return answer.label, answer.score


def parts() -> torch.Tensor:
    """A model of a configuration, one by name, an operation, and the rows of attention."""
    model = ViT(ViTConfig(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, mixer="fourier"))
    named = regard.create_model("vit_tiny_patch16_224", num_classes=3, mixer=next(iter(MIXERS)))
    regard.swap_mixer(named, "local", [0, 1])
    looked_at = rows(named, torch.rand(1, 3, 224, 224), queries="all")
    assert looked_at[0].weights.ndim == 4
    assert model.flops() > 0
    q, k, v = torch.rand(3, 1, 2, 5, 4)
    return attention(q, k, v)


def mixers(data: Path) -> str:
    """Which mixer to take, and how sure that is."""
    compared = regard.compare_mixers(["attention", "conv"], data, seeds=2, until="minutes=5")
    return f"{compared.sentence} Attention is {compared.verdict('attention', 'conv')}."
