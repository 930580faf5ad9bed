"""The classifiers of other libraries that `photographs.py` measures: logistic regression on features, and ResNet-18."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regard.data import ImageSource, evaluation_loader, evaluation_transform, open_images
from regard.recipes import load_recipe
from regard.tasks import ClassificationTask
from regard.training.machine import has_bf16

SPLIT = ["data.val_fraction=0.2", "data.split_seed=0"]
STRENGTHS = np.logspace(-4, 2, 7)  # of the regression's C


def logistic_regression(address: str, steps: int | None) -> dict[str, Any]:
    """On the features that `finetune-photos` learns from. C is chosen by cross-validation of the training images."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    smaller = [] if steps is None else ["model.img_size=56"]
    task = ClassificationTask(load_recipe("finetune-photos", [*SPLIT, *smaller], address=address))
    model, begun = task.build_model().eval(), time.monotonic()
    (known, labels), (asked, truth) = (features(model, task, source) for source in (task.data.train, task.data.val))
    seconds = time.monotonic() - begun
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    found = GridSearchCV(regression, {"logisticregression__C": STRENGTHS}, cv=5 if steps is None else 2)
    found.fit(known, labels)
    return {
        "accuracy": float((found.predict(asked) == truth).mean()),
        "steps": 0,
        "images_per_second": round((len(labels) + len(truth)) / seconds, 1),
        "pixels": str(task.preprocessing.img_size),
        "C": float(found.best_params_["logisticregression__C"]),
        "began": str(task.recipe.model.weights),
        "tuned": f"C from {STRENGTHS[0]:g} to {STRENGTHS[-1]:g} by cross-validation; features standardised",
    }


@torch.inference_mode()
def features(model: nn.Module, task: ClassificationTask, source: ImageSource) -> tuple[np.ndarray, np.ndarray]:
    """The input of the head, and the labels."""
    loader = evaluation_loader(
        source, evaluation_transform(task.preprocessing), batch_size=32, num_workers=0, on_bad_image="stop"
    )
    kept, labels = [], []
    for batch in loader:
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16(torch.device("cpu"))):
            found = model.intermediates(batch.images, ["pre_logits"])["pre_logits"]  # type: ignore[operator]
        kept.append(found.float().numpy())
        labels.append(batch.labels.numpy())
    return np.concatenate(kept), np.concatenate(labels)


class ResNetOptions(NamedTuple):
    side: int = 64
    lr: float = 2e-3
    batch_size: int = 64
    weight_decay: float = 0.05
    backbone: float = 1.0
    ema: float = 0.99
    clip: float = 1.0
    smoothing: float = 0.1
    shift: int = 6


Train = Callable[..., tuple[nn.Module, dict[str, Any]]]


def resnet18(address: str, end: float, seed: int, steps: int | None, change: dict[str, Any], train: Train) -> Any:
    """timm's, from random weights: images are decoded once; shifted, scaled and changed in brightness, not flipped."""
    import timm

    options = ResNetOptions()._replace(**change)
    data = open_images(address, channels=3, val_fraction=0.2, split_seed=0)
    (images, labels), (asked, truth) = (decoded(source, options.side) for source in (data.train, data.val))
    mean, std = images.mean((0, 2, 3), keepdim=True), images.std((0, 2, 3), keepdim=True)
    torch.manual_seed(seed)
    model = timm.create_model("resnet18", num_classes=len(data.class_names))

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            for chosen in torch.randperm(len(images)).split(options.batch_size):
                if len(chosen) == options.batch_size or len(images) < options.batch_size:
                    yield (changed(images[chosen], options.shift) - mean) / std, labels[chosen]

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], label_smoothing=options.smoothing)

    reserve = 3 + len(asked) / 200
    kept, record = train(model, loss, batches(), options, seed, end - reserve, steps)
    with torch.inference_mode():
        answers = torch.cat([kept((part - mean) / std).argmax(1) for part in asked.split(64)])
    record |= {"accuracy": float((answers == truth).float().mean()), "pixels": str(options.side)}
    record |= {"parameters": sum(one.numel() for one in model.parameters())}
    return record | {"began": "random weights"}


def decoded(source: ImageSource, side: int) -> tuple[Tensor, Tensor]:
    """All images, squashed to a square, with values in [0, 1]; and their labels."""
    read = (source.read(index)[None].float() / 255 for index in range(len(source)))
    images = [F.interpolate(image, (side, side), mode="bilinear", antialias=True) for image in read]
    return torch.cat(images), torch.tensor(source.labels)


def changed(images: Tensor, shift: int) -> Tensor:
    """Scaled by 0.85 to 1.15, shifted by at most so many pixels, and brighter or darker by at most a fifth."""
    count, side = len(images), images.shape[-1]
    zoom = torch.empty(count).uniform_(0.85, 1.15)
    place = torch.empty(count, 2).uniform_(-1, 1) * 2 * shift / side
    matrix = torch.zeros(count, 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = zoom
    matrix[:, :, 2] = place
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return (moved * torch.empty(count, 1, 1, 1).uniform_(0.8, 1.2)).clamp(0, 1)
