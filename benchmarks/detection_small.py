"""How fast a detector learns from little: DN-DETR, the plain DETR and transformers' small RT-DETR, beside each other.

All are trained by one loop on the same images in the same order, with AdamW, a cosine over the minutes and an average
of the weights, and evaluated on the same held-out images; evaluations do not count as training. Each finished run is
kept in the results file, so that a second call goes on where the first one ended.

Run: .venv/bin/python benchmarks/detection_small.py [speed|curves|few|pretrained|images|ablation|ablation_few ...]
`images` and the ablations are many runs, which compare what had the same time of one core: two at a time, on two cores,
are `--threads 1 --share 1/2` and, beside it, `--threads 1 --share 2/2`.
"""

import argparse
import fcntl
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn
from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig, TimmBackboneConfig

from peer import interleaved, median_ratio, result_path, save
from regard import create_model
from regard.data import seed_for
from regard.layers import fused
from regard.losses import DNDETRLoss
from regard.recipes import Recipe, load_recipe
from regard.tasks import DetectionTask
from regard.training.budget import cosine
from regard.training.machine import has_bf16
from regard.training.optim import create_average, create_optimizer

MINUTES = 10.0
SIZES = (25, 50, 100, 200, 400, 800, 1500)  # training scenes
RECIPES: dict[str, tuple[str, ...]] = {  # and the settings on top
    "dn_detr": ("detr-small",),
    "dn_detr without denoising": ("detr-small", "model.num_denoising=0"),
    "dn_detr pretrained": ("detr-small-pretrained",),
    "detr": ("detr-digit-scenes",),
    # Batches of 16 and images as they are: how transformers' RT-DETR was measured when this was set as the mark.
    "rt_detr": (
        "detr-small",
        *("augment.scale_jitter=[1,1]", "augment.mosaic=0", "augment.colour=0", "train.batch_size=16"),
    ),
}
# What is taken from the recipe, or put in another's place, one at a time.
ABLATION: dict[str, tuple[str, ...]] = {
    "all parts": (),
    "no denoising": ("model.num_denoising=0",),
    "noised objects without negatives": ("model.contrastive=false",),
    "learned queries in the place of the best tokens": ("model.two_stage=false",),
    "no boxes as queries, so that queries are learned, none is noised and attention is dense": (
        "model.box_queries=false",
        "model.two_stage=false",
        "model.num_denoising=0",
        "model.cross_attention=dense",
    ),
    "dense cross-attention": ("model.cross_attention=dense",),
    "one scale": ("model.strides=[16]",),
    "focal loss": ("model.label_loss=focal",),
    "varifocal loss": ("model.label_loss=varifocal",),
    "no average of the weights": ("train.ema_decay=0",),
    "twice as many noised": ("model.num_denoising=60",),
    "no mosaic": ("augment.mosaic=0",),
    "no scale jitter": ("augment.scale_jitter=[1,1]",),
    "changes of colour": ("augment.colour=0.3",),
}


class Found(NamedTuple):
    """What a detector of regard's gives, and the loss that came with it."""

    logits: Tensor
    boxes_cxcywh: Tensor


class RTDETR(nn.Module):
    """transformers' RT-DETR behind the face of regard's detectors; its own loss, matching and denoising."""

    scores, label_loss = "sigmoid", "focal"

    def __init__(self, config: RTDetrConfig) -> None:
        super().__init__()
        self.body = RTDetrForObjectDetection(config)
        # transformers draws the gains of norms around zero; then nothing is learned for minutes. One, as in PyTorch.
        for module in self.body.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Found:
        found = self.body(images)
        return Found(found.logits[None], found.pred_boxes[None])

    def loss(self, images: Tensor, labels: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        targets = [{"class_labels": a, "boxes": b} for a, b in zip(labels, boxes, strict=True)]
        return self.body(images, labels=targets).loss


def rt_detr(num_classes: int = 10, *, num_queries: int = 30, lite0: bool = False) -> RTDETR:
    """4.8 M parameters: three maps of a ResNet, 128 channels, 30 queries, 3 decoder layers, 30 denoising queries.

    lite0: EfficientNet-Lite0 is the backbone, with random weights.
    """
    widths = [32, 64, 128, 256]
    backbone = RTDetrResNetConfig(
        embedding_size=32,
        hidden_sizes=widths,
        depths=[2, 2, 2, 2],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    if lite0:
        widths = [24, 40, 112, 320]
        backbone = TimmBackboneConfig(backbone="tf_efficientnet_lite0", out_indices=[2, 3, 4])
    return RTDETR(
        RTDetrConfig(
            backbone_config=backbone,
            freeze_backbone_batch_norms=False,
            encoder_hidden_dim=128,
            encoder_in_channels=widths[1:],
            encoder_ffn_dim=256,
            hidden_expansion=0.5,
            d_model=128,
            decoder_in_channels=[128] * 3,
            decoder_ffn_dim=256,
            decoder_layers=3,
            num_queries=num_queries,
            num_denoising=30,
            num_labels=num_classes,
        )
    )


def train(name: str, recipe: Recipe, minutes: float, *, evaluations: int) -> dict[str, Any]:
    """AP over the minutes of training, evaluated so many times, evenly, and at the end.

    A run that diverged finds nothing from there on.
    """
    options, task = recipe.train, DetectionTask(recipe)
    torch.manual_seed(recipe.seed)
    model = rt_detr(len(task.data.class_names)) if name == "rt_detr" else task.build_model()
    loss_of: Callable[[Any], Tensor] = lambda batch: task.loss(model, batch)  # noqa: E731
    if isinstance(model, RTDETR):
        loss_of = lambda batch: model.loss(batch.images, batch.labels, batch.boxes_cxcywh)  # noqa: E731
    average = create_average(model, options.ema_decay) if options.ema_decay else None
    optimizer, seconds, step, due = create_optimizer(model, options), 0.0, 0, 1
    half = options.precision != "fp32" and has_bf16(torch.device("cpu"))
    batches = iter(task.training_loader(task.order(rank=0, world_size=1)))
    curve: list[dict[str, float]] = []
    diverged: int | None = None
    while due <= evaluations:
        model.train()
        start = time.perf_counter()
        rate = options.lr * cosine(min(seconds / (60 * minutes), 1), options.warmup, options.final_lr)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        torch.manual_seed(seed_for(recipe.seed, step, 0))
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = loss_of(next(batches))
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), options.clip_grad or math.inf)
        optimizer.step()
        optimizer.zero_grad()
        if average is not None:
            average.update_parameters(model)
        if not (loss.isfinite() and norm.isfinite()):
            diverged = step + 1
            curve += [
                {"minutes": minutes * k / evaluations, "ap": 0.0, "ap50": 0.0} for k in range(due, evaluations + 1)
            ]
            break
        step += 1
        seconds += time.perf_counter() - start
        if seconds >= 60 * minutes * due / evaluations:
            kept = model if average is None else average.module
            metrics = task.metrics([task.evaluate(kept.eval(), rank=0, world_size=1)])
            point = {
                "minutes": round(seconds / 60, 2),
                "ap": round(metrics["ap"], 4),
                "ap50": round(metrics["ap50"], 4),
            }
            curve.append(point)
            print(f"{name}, seed {recipe.seed}, {len(task.train)} scenes: {point}", flush=True)
            due += 1
    return {
        "model": name,
        "seed": recipe.seed,
        "scenes": len(task.train),
        "minutes": minutes,
        "threads": torch.get_num_threads(),
        "steps": step,
        "batch_size": options.batch_size,
        "lr": options.lr,
        "epochs": round(step * options.batch_size / len(task.train), 1),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "precision": "bf16" if half else "fp32",
        "diverged": diverged,  # the step
        "ap": curve[-1]["ap"],
        "ap50": curve[-1]["ap50"],
        "curve": curve,
    }


def recipe_of(name: str, seed: int, *settings: str) -> Recipe:
    recipe, *own = RECIPES[name]
    # All train on the same images and are measured alike, the peers too: without suppression.
    return load_recipe(recipe, [*own, "evaluate.nms=off", *settings, f"seed={seed}"])


class Part(NamedTuple):
    """The runs of a part of the benchmark, each (what tells it from the others, model, recipe, minutes)."""

    runs: list[tuple[str, str, Recipe, float]]
    evaluations: int


def parts(minutes: float, seeds: Sequence[int]) -> dict[str, Part]:
    """All but `speed`."""
    curves = [
        (f"{m} seed {s}", m, recipe_of(m, s), minutes)
        for s in seeds
        for m in ("dn_detr", "rt_detr", "detr", "dn_detr without denoising")
    ]
    few = [
        (f"{m} seed {s}", m, recipe_of(m, s, "data.first=100"), minutes)
        for s in seeds
        for m in ("dn_detr", "rt_detr", "dn_detr pretrained", "dn_detr without denoising")
    ]
    pretrained = [(f"seed {s}", "dn_detr pretrained", recipe_of("dn_detr pretrained", s), minutes) for s in seeds]
    images = [
        (f"{m} {n} scenes seed {s}", m, recipe_of(m, s, f"data.first={n}"), minutes)
        for s in seeds
        for n in SIZES
        for m in ("dn_detr", "rt_detr", "detr")
    ]
    ablation, ablation_few = (
        [
            (f"{what} seed {s}", "dn_detr", recipe_of("dn_detr", s, f"data.first={first}", *settings), minutes)
            for s in seeds
            for what, settings in ABLATION.items()
        ]
        for first in (1500, 100)
    )
    return {
        "curves": Part(curves, max(round(minutes), 1)),
        "few": Part(few, max(round(minutes / 2), 1)),
        "pretrained": Part(pretrained, max(round(minutes), 1)),
        "images": Part(images, 1),
        "ablation": Part(ablation, 1),
        "ablation_few": Part(ablation_few, 1),
    }


def speed(turns: int) -> list[dict[str, Any]]:
    """A training step of 16 scenes and inference of one, at about equal parameters, with 30 queries and 30 noised."""
    torch.manual_seed(0)
    images = torch.randn(16, 3, 128, 128)
    labels = [torch.randint(10, (1 + i % 6,)) for i in range(16)]
    boxes = [torch.rand(len(one), 4) * 0.3 + 0.3 for one in labels]
    theirs = rt_detr()
    rows = []
    for what, options in {
        "detr-small": {"num_denoising": 30},
        "three scales, as RT-DETR": {"num_denoising": 30, "strides": (8, 16, 32)},
    }.items():
        ours, loss = create_model("dn_detr_mini", num_classes=10, **options), DNDETRLoss(10)
        optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-9) for model in (ours, theirs)]

        def stepping(
            of: Callable[[], Tensor], model: nn.Module, optimizer: torch.optim.Optimizer
        ) -> Callable[[], None]:
            def step() -> None:
                of().backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                optimizer.step()
                optimizer.zero_grad()

            return step

        def our_loss(model: nn.Module = ours, loss: DNDETRLoss = loss) -> Tensor:
            return loss(model(images, None, labels, boxes), labels, boxes).total

        steps = {
            "rt_detr": stepping(lambda: theirs.loss(images, labels, boxes), theirs.train(), optimizers[1]),
            "dn_detr": stepping(our_loss, ours.train(), optimizers[0]),
        }
        training = interleaved(steps, repetitions=turns)
        theirs.eval()
        used = fused(ours.eval())  # as `regard predict` does

        def seeing(model: nn.Module) -> Callable[[], None]:
            def see() -> None:
                with torch.inference_mode():
                    model(images[:1])

            return see

        inference = interleaved({"rt_detr": seeing(theirs), "dn_detr": seeing(used)}, repetitions=5 * turns)
        counts = {name: sum(p.numel() for p in m.parameters()) for name, m in (("dn_detr", ours), ("rt_detr", theirs))}
        rows.append(
            {"what": what, "parameters": counts}
            | {"training step": round(median_ratio(training["rt_detr"], training["dn_detr"]), 3)}
            | {"inference of one": round(median_ratio(inference["rt_detr"], inference["dn_detr"]), 3)}
            | {"median_ms": {k: [_ms(training[k]), _ms(inference[k])] for k in ("rt_detr", "dn_detr")}}
        )
        print(rows[-1], flush=True)
    return rows


def _ms(seconds: Sequence[float]) -> float:
    return round(1e3 * statistics.median(seconds), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["speed", "curves", "few", "pretrained"])
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", help="only these of a part's")
    parser.add_argument("--threads", type=int, help="of each run; all cores unless given")
    parser.add_argument("--share", default="1/1", help="such as 2/3: of three processes, this is the second")
    parser.add_argument("--turns", type=int, default=7, help="of `speed`")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    own, shares = (int(number) for number in arguments.share.split("/"))
    known = parts(arguments.minutes, arguments.seeds)
    unknown = set(arguments.parts) - {*known, "speed"}
    if unknown:
        parser.error(f"unknown part {', '.join(sorted(unknown))}; there are speed, {', '.join(known)}")
    for part in arguments.parts:
        if part == "speed":
            keep("speed", None, speed(arguments.turns))
            continue
        runs = [run for run in known[part].runs if not arguments.models or run[1] in arguments.models]
        for key, name, recipe, minutes in runs[own - 1 :: shares]:
            key = f"{key}, {minutes:g} min" + (f", {arguments.threads} thread" if arguments.threads else "")
            if key not in kept().get(part, {}):
                keep(part, key, train(name, recipe, minutes, evaluations=known[part].evaluations))
    print(f"saved to {result_path('detection_small')}")


def kept() -> dict[str, Any]:
    path = result_path("detection_small")
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["results"] if path.exists() else {}
    return results


def keep(part: str, key: str | None, what: Any) -> None:
    """Puts a result among those that there are by now; another process may be at the same."""
    with (Path(tempfile.gettempdir()) / "detection_small.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        results = kept()
        if key is None:
            results[part] = what
        else:
            results.setdefault(part, {})[key] = what
        save("detection_small", results, ("transformers", "timm"))


if __name__ == "__main__":
    main()
