"""FNet's mixing against torch's complex transform, and MLP-Mixer-B/16 against timm's.

Run: .venv/bin/python benchmarks/fourier.py [--repetitions 15]
The ratios are medians of turns: how many times as fast as the peer, forward and backward.
"""

import argparse
import statistics
from collections.abc import Callable

import timm
import torch
from torch import Tensor

from peer import interleaved, median_ratio, save
from regard import create_model
from regard.ops import fourier_mixing

SHAPES = [(8, 196, 192), (8, 196, 768), (4, 512, 384), (2, 1024, 768), (1, 4096, 768)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=15)
    repetitions = parser.parse_args().repetitions
    rows = [fourier(shape, repetitions) for shape in SHAPES]
    print(f"saved to {save('fourier', {'fourier': rows, 'mixer_b16': mixer(max(repetitions // 3, 3))}, ('timm',))}")


def fourier(shape: tuple[int, int, int], repetitions: int) -> dict[str, object]:
    torch.manual_seed(0)
    x, weight = torch.randn(shape, requires_grad=True), torch.randn(shape)

    def run(way: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        return lambda: way(x).backward(weight)

    found = _measured({"regard": run(fourier_mixing), "torch": run(lambda x: torch.fft.fft2(x).real)}, repetitions)
    return {"shape": shape, **found}


def mixer(repetitions: int) -> list[dict[str, object]]:
    ours, theirs = create_model("mixer_b16_224"), timm.create_model("mixer_b16_224")
    rows = []
    for batch, training in ((1, False), (8, False), (8, True)):
        images = torch.randn(batch, 3, 224, 224)

        def run(model: torch.nn.Module, images: Tensor = images, training: bool = training) -> Callable[[], object]:
            model.train(training)

            def step() -> object:
                if training:
                    return model(images).sum().backward()
                with torch.inference_mode():
                    return model(images)

            return step

        found = _measured({"regard": run(ours), "timm": run(theirs)}, repetitions)
        rows.append({"batch": batch, "mode": "forward and backward" if training else "forward", **found})
    return rows


def _measured(ways: dict[str, Callable[[], object]], repetitions: int) -> dict[str, object]:
    seconds = interleaved(ways, repetitions=repetitions)
    peer = next(name for name in ways if name != "regard")
    found = {
        "median_ms": {name: round(1e3 * statistics.median(times), 2) for name, times in seconds.items()},
        f"as_fast_as_{peer}": round(median_ratio(seconds[peer], seconds["regard"]), 2),
    }
    print(found, flush=True)
    return found


if __name__ == "__main__":
    main()
