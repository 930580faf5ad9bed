"""The small models of the lesson: trained on scikit-learn's digits, and kept as half floats in one file.

Run: .venv/bin/python docs/gen/lesson_models.py [--runs FOLDER]    (some fifteen minutes on one core); then make lesson
Three ViTs are kept whole. Of a fourth, whose mixer is an MLP across tokens, only its first mixer and what comes before.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import regard
from regard.data.images.digits import open_digits
from regard.models import ViT, ViTConfig

FILE = Path(__file__).parent / "lesson" / "models.safetensors"
# What the head reads. Windows reach from pixel to pixel; a class token would see all pixels at once.
POOLS = {"attention": "token", "local": "avg", "performer": "token", "mlp": "avg"}
SIDE, WINDOW = 8, 3
# A patch is one pixel.
MODEL: dict[str, Any] = {"patch_size": 1, "embed_dim": 48, "depth": 4, "num_heads": 4, "mlp_ratio": 2.0}
SETTINGS: dict[str, Any] = {"epochs": 80, "batch_size": 64, "seed": 0, "device": "cpu"}
FIRST_MIXER = ("patch_embed.", "pos_embed.", "blocks.0.norm1.", "blocks.0.mixer.")


@dataclass(frozen=True)
class Small:
    """A model of the lesson as it is kept: its weights by name, in half precision."""

    mixer: str
    mean: float
    std: float
    weights: dict[str, Tensor]

    @property
    def config(self) -> ViTConfig:
        options = {"window": WINDOW} if self.mixer == "local" else {}
        own: dict[str, Any] = {"pool": POOLS[self.mixer], "mixer": self.mixer, "mixer_options": options}
        return ViTConfig(img_size=SIDE, in_chans=1, num_classes=10, **own, **MODEL)

    def about(self) -> dict[str, Any]:
        """What the page has to know beside the numbers."""
        config = self.config
        return {
            "mixer": self.mixer,
            "side": SIDE,
            "prefix": int(config.pool == "token"),
            "dim": config.embed_dim,
            "heads": config.num_heads,
            "depth": config.depth,
            "window": WINDOW,
            "mean": self.mean,
            "std": self.std,
            "shapes": {name: list(weight.shape) for name, weight in self.weights.items()},
        }

    def vit(self) -> ViT:
        """In float32. Of the fourth model, what is not kept is as it was drawn."""
        torch.manual_seed(0)
        model = ViT(self.config).eval()
        unknown = model.load_state_dict({name: weight.float() for name, weight in self.weights.items()}, strict=False)
        assert not unknown.unexpected_keys
        assert self.mixer == "mlp" or not unknown.missing_keys
        return model

    def prepared(self, pixels: Tensor) -> Tensor:
        """Normalised images, of pixels from 0 to 255."""
        return (pixels.float() / 255 - self.mean) / self.std


def load_models() -> dict[str, Small]:
    """The models of the file, by mixer."""
    with safe_open(FILE, "pt") as file:
        about = file.metadata()
        models: dict[str, dict[str, Tensor]] = {mixer: {} for mixer in POOLS}
        for key in sorted(file.keys()):
            mixer, _, name = key.partition("/")
            models[mixer][name] = file.get_tensor(key)
    mean, std = float(about["mean"]), float(about["std"])
    return {mixer: Small(mixer, mean, std, weights) for mixer, weights in models.items()}


def accuracies() -> dict[str, float]:
    """Of the three whole models, on the digits that they were not trained on; measured when they were kept."""
    with safe_open(FILE, "pt") as file:
        about = file.metadata()
    return {mixer: float(about[mixer]) for mixer in POOLS if mixer in about}


def held_out() -> tuple[Tensor, Tensor]:
    """The digits that no model of the lesson was trained on, (450, 1, 8, 8) from 0 to 255, and their labels."""
    val = open_digits(channels=1, val_fraction=0.25, split_seed=0).val
    return torch.stack([val.read(i) for i in range(len(val))]), torch.tensor([int(str(label)) for label in val.labels])


def trained(mixer: str, folder: Path) -> Small:
    """One model, by the recipe `vit-digits`; read, where the folder has it already."""
    model = {**MODEL, "pool": POOLS[mixer], "mixer_options": {"local": {"window": WINDOW}}}
    found: Any = (
        regard.load(folder / mixer)
        if (folder / mixer).exists()
        else regard.train("vit-digits", out=folder / mixer, mixer=mixer, model=model, **SETTINGS)
    )
    state, looks = found.model.state_dict(), found.preprocessing
    kept = {name: weight for name, weight in state.items() if mixer != "mlp" or name.startswith(FIRST_MIXER)}
    return Small(mixer, looks.mean[0], looks.std[0], {name: weight.half() for name, weight in kept.items()})


@torch.no_grad()
def accuracy(small: Small) -> float:
    images, labels = held_out()
    answers = small.vit()(small.prepared(images)).argmax(1)
    return (answers == labels).double().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="a folder that keeps the runs")
    given = parser.parse_args()
    torch.set_num_threads(1)  # more are slower for so small a model, where the cores have other work
    with tempfile.TemporaryDirectory() as folder:
        models = [trained(mixer, given.runs or Path(folder)) for mixer in POOLS]
    about = {"mean": str(models[0].mean), "std": str(models[0].std)}
    for small in models:
        if small.mixer != "mlp":
            about[small.mixer] = f"{accuracy(small):.4f}"
    tensors = {f"{one.mixer}/{name}": weight.contiguous() for one in models for name, weight in one.weights.items()}
    save_file(tensors, FILE, about)
    print(f"{FILE}: {FILE.stat().st_size:,} bytes; {about}")


if __name__ == "__main__":
    main()
