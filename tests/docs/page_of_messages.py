"""What test_troubleshooting.py reads its page with, and makes faulty data with."""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from regard.cli.main import main

# What stands for a part that differs from case to case; the page says so.
PARTS = re.compile(r"\b(FILE|FOLDER|NAMES|NUMBER|REASON|VERSION)\b")
SECTION = re.compile(r"^### (.+?)\n(.*?)(?=^##|\Z)", flags=re.DOTALL | re.MULTILINE)


def messages_of(page: str) -> dict[str, str]:
    """Heading -> the one message under it, on one line."""
    found: dict[str, str] = {}
    for heading, text in SECTION.findall(page):
        blocks = re.findall(r"^```text\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
        assert len(blocks) == 1, f"{heading}: {len(blocks)} messages"
        assert heading not in found, f"{heading}: is there twice"
        assert text.rpartition("```")[2].strip(), f"{heading}: there is no way on"
        found[heading] = " ".join(blocks[0].split())
    return found


def pattern_of(message: str) -> str:
    """A regular expression for what is printed where the page has `message`."""
    texts = PARTS.split(message)
    return "".join(".+?" if index % 2 else re.escape(text) for index, text in enumerate(texts))


@dataclass
class Place:
    """A folder in which something is wrong."""

    path: Path
    patch: pytest.MonkeyPatch

    TINY: ClassVar[dict[str, Any]] = {"depth": 1, "embed_dim": 16, "num_heads": 2, "max_steps": 1, "device": "cpu"}

    def tells(self, *words: object) -> int:
        """The exit status of `regard WORDS` in this process."""
        self.patch.setattr(sys, "argv", ["regard", *map(str, words)])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    def trains(self, *words: object, steps: int = 1) -> int:
        """`regard train` of a small model; `--set` of WORDS holds where both say something."""
        small = [f"model.{key}={self.TINY[key]}" for key in ("depth", "embed_dim", "num_heads")]
        settings = [*small, f"train.max_steps={steps}", "train.batch_size=8", "train.device=cpu", "data.num_workers=0"]
        return self.tells("train", "vit-digits", *(word for one in settings for word in ("--set", one)), *words)

    def detects(self, address: str) -> int:
        return self.tells("train", "detr-small", "--data", address, "--set", "train.max_steps=1")

    def image(self, name: str, size: int = 64) -> Path:
        """An image of noise."""
        file = Path(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(len(name)).integers(0, 256, (size, size), np.uint8)
        Image.fromarray(pixels).save(file, "PNG")
        return file

    def classes(self, folder: str) -> list[Path]:
        """Four images of each of two classes."""
        return [self.image(f"{folder}/{label}/{i}.png", 24) for label in ("cat", "dog") for i in range(4)]

    def coco(self, *, category_id: int = 1, bbox: Sequence[int] = (8, 8, 20, 20), count: int = 1) -> None:
        """scenes/, of two images a part with one box in each; `count` 0 leaves the boxes out."""
        for part in ("train", "val"):
            images = [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 64} for i in range(2)]
            boxes = [
                {"id": i, "image_id": i, "category_id": category_id, "bbox": list(bbox), "iscrowd": 0}
                for i in range(2 * count)
            ]
            for image in images:
                self.image(f"scenes/{part}/{image['file_name']}")
            file = Path("scenes/annotations") / f"instances_{part}.json"
            file.parent.mkdir(exist_ok=True)
            held = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cell"}]}
            file.write_text(json.dumps(held), encoding="utf-8")

    def yolo(self, *, train: str = "images/train", label: str = "0 0.5 0.5 0.3 0.3") -> None:
        """scenes/, likewise."""
        for part in ("train", "val"):
            labels = Path("scenes/labels") / part
            labels.mkdir(parents=True)
            for i in range(2):
                self.image(f"scenes/images/{part}/{i}.png")
                (labels / f"{i}.txt").write_text(f"{label}\n", encoding="utf-8")
        text = f"train: {train}\nval: images/val\nnames: [cell]\n"
        Path("scenes/data.yaml").write_text(text, encoding="utf-8")

    def without(self, package: str) -> None:
        """As where a package is not installed."""
        for module in ("regard.data.images.walk", "regard.data.images.files"):
            self.patch.setattr(f"{module}.find_spec", lambda name: None if name == package else object())

    def offline(self) -> None:
        """As where the hub cannot be reached."""
        self.patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        self.patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(self.path / "hub"))
