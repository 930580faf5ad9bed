"""One contender of inference.py, in a process of its own. Lines of JSON come in on stdin and go out on stdout."""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

Answer = Callable[[], object]

# Case -> (the model that is built here, timm's name and its changes or "detr", (height, width), channels, batches).
CASES: dict[str, tuple[str, str | dict[str, Any] | None, int, int, tuple[int, ...]]] = {
    "ViT-S/16": ("vit_small_patch16_224", "vit_small_patch16_224", 224, 3, (1, 8)),
    "ViT-B/16": ("vit_base_patch16_224", "vit_base_patch16_224", 224, 3, (1, 8)),
    "Mixer-S/16": ("mixer_s16_224", "mixer_s16_224", 224, 3, (1,)),
    "ViT-S/16, performer": ("vit_small_patch16_224 performer", None, 224, 3, (1,)),
    "digits ViT": (
        "vit_pico_patch2_8",
        {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10, "embed_dim": 64, "depth": 3, "num_heads": 4}
        | {"global_pool": "avg"},
        8,
        1,
        (1,),
    ),
    "detr-small, 128 px": ("dn_detr_mini", None, 128, 3, (1,)),
    "DETR-R50, 480 px": ("detr_resnet50", "detr", 480, 3, (1,)),
}


def main() -> None:
    talk = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    wanted = json.loads(sys.stdin.readline())
    answers = [answer_of(wanted, place) for place in range(len(wanted["batches"]))]
    talk.write("{}\n")
    talk.flush()
    for line in sys.stdin:
        place, calls = json.loads(line)
        talk.write(json.dumps(seconds_of(answers[place], calls)) + "\n")
        talk.flush()


def seconds_of(answer: Answer, calls: int) -> float:
    """The median of some calls. One before them is not counted, unless a call takes so long that it is warm anyway."""
    if calls > 1:
        answer()
    found = []
    for _ in range(calls):
        began = time.perf_counter()
        answer()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def answer_of(wanted: dict[str, Any], place: int) -> Answer:
    """wanted: `case`, `engine`, `precision`, `file` (or files, one a batch), `threads`, `batches`."""
    import numpy as np

    _, _, size, channels, _ = CASES[wanted["case"]]
    images = np.random.default_rng(0).random((wanted["batches"][place], channels, size, size), np.float32)
    if wanted["engine"] in ("onnx", "openvino"):
        return of_file(wanted["engine"], wanted["precision"], wanted["files"][place], wanted["threads"], images)
    import torch

    torch.set_num_threads(wanted["threads"])
    model, pixels = of_torch(wanted["case"], wanted["engine"], wanted["precision"]), torch.from_numpy(images)

    def answer() -> object:
        with torch.inference_mode():
            return model(pixels)

    return answer


def of_file(engine: str, precision: str, file: str, threads: int, images: Any) -> Answer:
    """Without PyTorch in the process."""
    if engine == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda: session.run(None, {name: images})
    import openvino

    hint = "bf16" if precision == "bf16" else "f32"
    options = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(file, "CPU", options)
    return lambda: compiled([images])


def of_torch(case: str, engine: str, precision: str = "fp32") -> Any:
    """timm's or transformers' model, ours as it is (a detector's norms fused), or ours optimized."""
    import torch

    torch.manual_seed(0)
    if engine == "peer":
        return peer_of(case)
    import regard
    from regard.layers.frozen_norm import fused

    preset, _, mixer = CASES[case][0].partition(" ")
    model: Any = regard.create_model(preset, **({"mixer": mixer} if mixer else {})).eval()
    if engine == "optimize":
        return regard.optimize(model, precision)
    return fused(model) if "detr" in preset else model


def peer_of(case: str) -> Any:
    theirs = CASES[case][1]
    if theirs == "detr":
        from transformers import DetrConfig, DetrForObjectDetection

        config = DetrConfig(backbone="resnet50", use_timm_backbone=True, use_pretrained_backbone=False, num_labels=91)
        return DetrForObjectDetection(config).eval()
    import timm
    from timm.models.vision_transformer import VisionTransformer

    return (timm.create_model(theirs) if isinstance(theirs, str) else VisionTransformer(**theirs)).eval()  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
