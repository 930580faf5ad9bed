"""DETR with a ResNet-50 against transformers' DetrForObjectDetection, with the same weights, in one process.

Run: .venv/bin/python benchmarks/detr.py
"""

import statistics
import time

import torch
import transformers
from transformers import DetrConfig, DetrForObjectDetection

from peer import interleaved, median_ratio, save
from regard import create_model
from regard.losses import SetPredictionLoss
from regard.weights import load_weights

SIZES = [(256, 2), (320, 4)]  # pixels, images
OBJECTS = 10
TURNS = 9


def models() -> tuple[torch.nn.Module, torch.nn.Module]:
    torch.manual_seed(0)
    config = DetrConfig(backbone="resnet50", use_timm_backbone=True, use_pretrained_backbone=False, num_labels=91)
    config.auxiliary_loss = True
    theirs = DetrForObjectDetection(config)
    ours = create_model("detr_resnet50")
    load_weights(ours, theirs.state_dict())
    return ours, theirs


def main() -> None:
    transformers.logging.set_verbosity_error()
    ours, theirs = models()
    results = [inference(ours, theirs, size, batch) for size, batch in SIZES]
    results += [training(ours, theirs, size, batch) for size, batch in SIZES]
    for row in results:
        print(", ".join(f"{key} {value}" for key, value in row.items() if key != "median_ms"))
    print(f"saved to {save('detr', results, ('transformers', 'timm'))}")


def inference(ours: torch.nn.Module, theirs: torch.nn.Module, size: int, batch: int) -> dict[str, object]:
    images = torch.rand(batch, 3, size, size)
    ours.eval()
    theirs.eval()
    halved = create_model("detr_resnet50").eval()
    halved.load_state_dict(ours.state_dict())
    halved.to(torch.bfloat16)

    def run(model: torch.nn.Module, pixels: torch.Tensor):
        def once():
            with torch.inference_mode():
                return model(pixels)

        return once

    ways = {"transformers": run(theirs, images), "regard": run(ours, images)}
    found, wanted = ways["regard"](), ways["transformers"]()
    torch.testing.assert_close(found.boxes_cxcywh[-1], wanted.pred_boxes, rtol=0, atol=1e-4)
    ways["regard bf16"] = run(halved, images.bfloat16())
    seconds = interleaved(ways, repetitions=TURNS)
    return {
        "what": f"inference, {batch} of {size} px",
        "fp32": round(median_ratio(seconds["transformers"], seconds["regard"]), 3),
        "bf16 against their fp32": round(median_ratio(seconds["transformers"], seconds["regard bf16"]), 3),
        "median_ms": _milliseconds(seconds),
    }


def training(ours: torch.nn.Module, theirs: torch.nn.Module, size: int, batch: int) -> dict[str, object]:
    images = torch.rand(batch, 3, size, size)
    labels = [torch.randint(91, (OBJECTS,)) for _ in range(batch)]
    boxes = [torch.rand(OBJECTS, 4) * 0.4 + 0.3 for _ in range(batch)]
    targets = [{"class_labels": a, "boxes": b} for a, b in zip(labels, boxes, strict=True)]
    loss = SetPredictionLoss(91)
    matching: list[float] = []
    # Both learn the whole backbone, at a rate that changes nothing to speak of.
    optimizers = [torch.optim.AdamW(model.train().parameters(), lr=1e-9) for model in (ours, theirs)]

    def our_step() -> None:
        output = ours(images)
        start = time.perf_counter()
        total = loss(*output, labels, boxes).total
        matching.append(time.perf_counter() - start)
        total.backward()
        torch.nn.utils.clip_grad_norm_(ours.parameters(), 0.1)
        optimizers[0].step()
        optimizers[0].zero_grad()

    def their_step() -> None:
        theirs(images, labels=targets).loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.1)
        optimizers[1].step()
        optimizers[1].zero_grad()

    seconds = interleaved({"transformers": their_step, "regard": our_step}, repetitions=TURNS)
    share = statistics.median(matching) / statistics.median(seconds["regard"])
    return {
        "what": f"training step, {batch} of {size} px",
        "fp32": round(median_ratio(seconds["transformers"], seconds["regard"]), 3),
        "matching and losses, share of our step": round(share, 4),
        "median_ms": _milliseconds(seconds),
    }


def _milliseconds(seconds: dict[str, list[float]]) -> dict[str, float]:
    return {name: round(1e3 * statistics.median(times), 1) for name, times in seconds.items()}


if __name__ == "__main__":
    main()
