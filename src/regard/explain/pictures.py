"""Pictures of what tokens take from each other. A picture says which sense of "take" it shows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from regard.draw.sheet import HEAT, INK, LINE, PANEL, as_share, draw_scale, frame, imshow, sheet, write_below
from regard.errors import RegardError
from regard.explain.mixing import Kind, Mixing, token_at, token_name
from regard.layers import Grid

if TYPE_CHECKING:  # importing it takes a second, which only those who draw should wait for
    import matplotlib.axes
    import matplotlib.figure
    import matplotlib.image

KINDS: dict[Kind, str] = {
    "matrix": "mixing matrix, mean over heads: what token i takes from token j",
    "influence": "influence: norm of ∂y_i/∂x_j",
}
HEADS = "mixing matrix of each head: what token i takes from token j"


def representative_tokens(image: UInt8[Tensor, "channels height width"], grid: Grid) -> list[int]:
    """The class token where there is one, the patch that differs most from the image's mean colour, centre, corner."""
    pixels = image.float()
    difference = (pixels - pixels.mean((1, 2), keepdim=True)).square().sum(0, keepdim=True)
    salient = int(F.adaptive_avg_pool2d(difference, (grid.height, grid.width)).argmax())
    centre = token_at(grid, grid.height // 2, grid.width // 2)
    return list(dict.fromkeys([*range(min(grid.prefix, 1)), grid.prefix + salient, centre, grid.prefix]))


def mixing_figure(
    image: UInt8[Tensor, "channels height width"],
    mixings: Sequence[Mixing],
    *,
    tokens: Sequence[int] | None = None,
    title: str = "",
) -> "matplotlib.figure.Figure":
    """A row for each query token i, a column for each mixing: a heat map of what i takes from every patch j.

    `image` is the picture as the model sees it, before normalisation. `tokens` are those of `representative_tokens`
    that the mixings have rows for, unless given. Each
    heat map has a colour scale of its own, from zero to the number beneath it; what a token takes from the class token
    and registers is written there too. RegardError for no mixing, mixings of several grids, a token that is not there.
    """
    grid = _one_grid(mixings)
    chosen = _shown(image, mixings) if tokens is None else list(tokens)
    captions = [_caption(mixings, kind) for kind in dict.fromkeys(mixing.kind for mixing in mixings)]
    names = [token_name(grid, token) for token in chosen]
    figure, panels = sheet(
        _panel_size(grid), len(chosen), 1 + len(mixings), title, captions, below=_below(grid), between=0.6 * LINE
    )
    for row, token, name in zip(panels, chosen, names, strict=True):
        _draw_image(row[0], image, grid, token, name)
        for panel, mixing in zip(row[1:], mixings, strict=True):
            _draw_heat(panel, mixing.row(token), mixing.kind, grid, token)
            panel.set_label(f"{mixing.mixer}, layer {mixing.layer}, {name}")
    for panel, mixing in zip(panels[0][1:], mixings, strict=True):
        panel.set_title(f"layer {mixing.layer}\n{mixing.mixer}", fontsize=8, color=INK, pad=4)
    return figure


def heads_figure(
    image: UInt8[Tensor, "channels height width"], mixing: Mixing, token: int, *, title: str = ""
) -> "matplotlib.figure.Figure":
    """What one token takes from every patch, in each head of one layer. RegardError for influence: it has no heads."""
    if mixing.heads is None:
        raise RegardError(f"{mixing.mixer}: influence is of a mixer as a whole; it cannot be shown head by head")
    grid, name = mixing.grid, token_name(mixing.grid, token)
    columns = min(1 + len(mixing.heads), 5)
    rows = -(-(1 + len(mixing.heads)) // columns)
    caption = f"{mixing.mixer}, layer {mixing.layer}: {HEADS}"
    figure, panels = sheet(_panel_size(grid), rows, columns, title, [caption], below=_below(grid), between=1.6 * LINE)
    first, *others = [panel for row in panels for panel in row]
    _draw_image(first, image, grid, token, name)
    for number, panel in enumerate(others):
        if number >= len(mixing.heads):
            panel.remove()
            continue
        _draw_heat(panel, mixing.head_row(number, token), mixing.kind, grid, token)
        panel.set_title(f"head {number}", fontsize=8, color=INK, pad=4)
        panel.set_label(f"{mixing.mixer}, layer {mixing.layer}, head {number}, {name}")
    return figure


def _shown(image: Tensor, mixings: Sequence[Mixing]) -> list[int]:
    known = set.intersection(*(set(mixing.tokens) for mixing in mixings))
    telling = [token for token in representative_tokens(image, mixings[0].grid) if token in known]
    return telling or sorted(known)[:4]


def _caption(mixings: Sequence[Mixing], kind: Kind) -> str:
    mixers = dict.fromkeys(mixing.mixer for mixing in mixings if mixing.kind == kind)
    error = max(mixing.error for mixing in mixings if mixing.kind == kind)
    estimated = f" (estimated, ± {error:.0%})" if error else ""
    return f"{', '.join(mixers)}: {KINDS[kind]}{estimated}"


def _one_grid(mixings: Sequence[Mixing]) -> Grid:
    grids = list(dict.fromkeys(mixing.grid for mixing in mixings))
    if len(grids) != 1:
        raise RegardError(f"a picture shows mixings of one grid, got {', '.join(map(str, grids)) or 'no mixing'}")
    return grids[0]


def _panel_size(grid: Grid) -> tuple[float, float]:
    """Inches, in the shape of the grid."""
    width, height = (PANEL * side / max(grid.height, grid.width) for side in (grid.width, grid.height))
    return max(width, 0.7 * PANEL), max(height, 0.3 * PANEL)


def _below(grid: Grid) -> float:
    """Inches beneath a panel: for its scale, and for what the prefix gives."""
    return (3 if grid.prefix else 2) * LINE


def _draw_image(panel: "matplotlib.axes.Axes", image: Tensor, grid: Grid, token: int, name: str) -> None:
    # Small images are shown pixel by pixel; to shrink a large one that way would break its lines.
    how = "none" if max(image.shape[1:]) < 64 else "auto"
    _on_grid(panel, image.permute(1, 2, 0).expand(-1, -1, 3), grid, interpolation=how)
    _outline(panel, grid, token)
    write_below(panel, 0.5, 1, f"i = {name}", "center")
    panel.set_label(f"image, {name}")


def _draw_heat(
    panel: "matplotlib.axes.Axes", weights: Float[Tensor, " tokens"], kind: Kind, grid: Grid, token: int
) -> None:
    weights = weights.detach().cpu().float()
    patches = weights[grid.prefix :].reshape(grid.height, grid.width)
    highest = patches.max().item()
    shown = _on_grid(panel, patches, grid)
    shown.set(cmap=HEAT, clim=(0, highest or 1))
    _outline(panel, grid, token)

    draw_scale(panel, "0", _number(highest, kind))
    if grid.prefix:
        whose = "class token" if grid.prefix == 1 else "class token, registers"
        given = _number(weights[: grid.prefix].sum().item(), kind)
        write_below(panel, 0.0, 2, f"{whose}: {given}", "left")


def _number(value: float, kind: Kind) -> str:
    """A share as a percentage, a norm as it is."""
    return as_share(value) if kind == "matrix" or value == 0 else f"{value:.3g}"


def _on_grid(
    panel: "matplotlib.axes.Axes", pixels: Tensor, grid: Grid, *, interpolation: str = "none"
) -> "matplotlib.image.AxesImage":
    """Draws pixels over the whole panel, whose coordinates count patches."""
    return imshow(panel, pixels, (0, grid.width, grid.height, 0), interpolation=interpolation)


def _outline(panel: "matplotlib.axes.Axes", grid: Grid, token: int) -> None:
    """A frame around the query's patch; a class token or register has none."""
    if token >= grid.prefix:
        row, col = divmod(token - grid.prefix, grid.width)
        frame(panel, col, row, 1, 1)
