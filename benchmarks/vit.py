"""Images per second of training and inference: Regard's ViT against timm's, the same weights, interleaved.

Run: .venv/bin/python benchmarks/vit.py [--repetitions 21]
"""

import argparse
import statistics
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer

import regard
from peer import interleaved, median_ratio, save

# name -> (regard's preset and its changes, timm's arguments, batch of inference, batch of training)
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], int, int]] = {
    "ViT-Ti/16, 224 px": (
        {"name": "vit_tiny_patch16_224"},
        {"img_size": 224, "patch_size": 16, "embed_dim": 192, "depth": 12, "num_heads": 3},
        8,
        8,
    ),
    "patch 4, 32 px, width 192, depth 6": (
        {"name": "vit_tiny_patch16_224", "img_size": 32, "patch_size": 4, "depth": 6},
        {"img_size": 32, "patch_size": 4, "embed_dim": 192, "depth": 6, "num_heads": 3},
        64,
        64,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=21)
    repetitions = parser.parse_args().repetitions
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    results = []
    for case, (ours, theirs, inference_batch, training_batch) in CASES.items():
        for mode, batch in (("inference", inference_batch), ("training", training_batch)):
            models = {"timm": VisionTransformer(**theirs), "regard": regard.create_model(**ours)}
            _same_weights(models["timm"], models["regard"])
            size = theirs["img_size"]
            images = torch.randn(batch, 3, size, size, device=device)
            ways = {name: _way(mode, model.to(device), images) for name, model in models.items()}
            seconds = interleaved(ways, repetitions=repetitions)
            speed = {name: round(batch / statistics.median(times), 1) for name, times in seconds.items()}
            ratio = round(median_ratio(seconds["timm"], seconds["regard"]), 3)
            results.append({"case": case, "mode": mode, "batch": batch, "images_per_second": speed, "ratio": ratio})
            print(
                f"{case:36} {mode:10} timm {speed['timm']:8.1f}  regard {speed['regard']:8.1f} images/s  {ratio:.3f}×"
            )
    print(f"saved to {save('vit', {'repetitions': repetitions, 'rows': results}, packages=('timm',))}")


def _same_weights(peer: torch.nn.Module, model: torch.nn.Module) -> None:
    """timm's state dict under Regard's names."""
    names = {".attn.": ".mixer.", "pos_embed": "pos_embed.table"}
    state = peer.state_dict()
    for theirs, ours in names.items():
        state = {key.replace(theirs, ours): tensor for key, tensor in state.items()}
    model.load_state_dict(state)


def _way(mode: str, model: torch.nn.Module, images: torch.Tensor) -> Any:
    if mode == "inference":
        model.eval()

        def infer() -> None:
            with torch.inference_mode():
                model(images).sum().item()

        return infer
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    labels = torch.arange(len(images), device=images.device)

    def step() -> None:
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return step


if __name__ == "__main__":
    main()
