"""Pictures of what tokens take from each other. Each says whether it shows the mixing matrix or influence."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float, UInt8
from torch import Tensor

from regard.draw.colours import INK
from regard.draw.heat_maps import Extent, draw_heat_map, draw_image, draw_scale, percent
from regard.draw.panels import LINE, PANEL, draw_frame, panels_figure, write_below
from regard.errors import RegardError
from regard.explain.mixing import Kind, Mixing
from regard.explain.tokens import representative_tokens, token_name
from regard.layers import Grid

if TYPE_CHECKING:
    import matplotlib.axes

    from regard.draw.figure import Figure

KINDS: dict[Kind, str] = {
    "matrix": "mixing matrix, mean over heads: what token i takes from token j",
    "influence": "influence: norm of ∂y_i/∂x_j",
}
HEADS = "mixing matrix of each head: what token i takes from token j"


def mixing_figure(
    image: UInt8[Tensor, "channels height width"],
    mixings: Sequence[Mixing],
    *,
    tokens: Sequence[int] | None = None,
    title: str = "",
) -> "Figure":
    """A row for each query token i, a column for each mixing: a heat map of what i takes from every patch j.

    `image` is the picture as the model sees it, before normalisation. Unless given, `tokens` are those of
    `representative_tokens` that the mixings have rows for. Each heat map has its own colour scale, from zero to the
    number beneath it; what the token takes from class token and registers is written there too.
    RegardError for no mixing, for mixings of several grids, and for a token that does not exist.
    """
    grid = _one_grid(mixings)
    chosen = _shown(image, mixings) if tokens is None else list(tokens)
    captions = [_caption(mixings, kind) for kind in dict.fromkeys(mixing.kind for mixing in mixings)]
    names = [token_name(grid, token) for token in chosen]
    figure, panels = panels_figure(
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
) -> "Figure":
    """What one token takes from every patch in each head of a layer. RegardError for influence, which has no heads."""
    count, grid, name = len(mixing.each_head()), mixing.grid, token_name(mixing.grid, token)
    columns = min(1 + count, 5)
    rows = -(-(1 + count) // columns)
    caption = f"{mixing.mixer}, layer {mixing.layer}: {HEADS}"
    figure, panels = panels_figure(
        _panel_size(grid), rows, columns, title, [caption], below=_below(grid), between=1.6 * LINE
    )
    first, *others = [panel for row in panels for panel in row]
    _draw_image(first, image, grid, token, name)
    for number, panel in enumerate(others):
        if number >= count:
            panel.remove()
            continue
        _draw_heat(panel, mixing.head_row(number, token), mixing.kind, grid, token)
        panel.set_title(f"head {number}", fontsize=8, color=INK, pad=4)
        panel.set_label(f"{mixing.mixer}, layer {mixing.layer}, head {number}, {name}")
    return figure


def matrix_figure(mixing: Mixing, *, title: str = "") -> "Figure":
    """All weights of a mixing as one heat map: a row for each of its query tokens i, a column for each token j."""
    rows, columns = mixing.weights.shape
    width, height = 3 * PANEL, 3 * PANEL * max(rows / columns, 1 / 8)
    caption = f"{_caption([mixing], mixing.kind)}; a row for each i, a column for each j"
    figure, [[panel]] = panels_figure((width, height), 1, 1, title, [caption], below=2 * LINE, between=0.0)
    highest = draw_heat_map(panel, mixing.weights.detach().cpu().float(), (0, columns, rows, 0))
    draw_scale(panel, "0", _number(highest, mixing.kind))
    panel.set_title(f"layer {mixing.layer}\n{mixing.mixer}", fontsize=8, color=INK, pad=4)
    panel.set_label(f"{mixing.mixer}, layer {mixing.layer}")
    return figure


def _shown(image: Tensor, mixings: Sequence[Mixing]) -> list[int]:
    known = set.intersection(*(set(mixing.tokens) for mixing in mixings))
    return [token for token in representative_tokens(image, mixings[0].grid) if token in known] or sorted(known)[:4]


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
    """(width, height) in inches, in the shape of the grid."""
    width, height = (PANEL * side / max(grid.height, grid.width) for side in (grid.width, grid.height))
    return max(width, 0.7 * PANEL), max(height, 0.3 * PANEL)


def _below(grid: Grid) -> float:
    """Inches beneath a panel: for its scale, and for what the token takes from the prefix."""
    return (3 if grid.prefix else 2) * LINE


def _draw_image(panel: "matplotlib.axes.Axes", image: Tensor, grid: Grid, token: int, name: str) -> None:
    draw_image(panel, image, _extent(grid))
    _outline(panel, grid, token)
    write_below(panel, 0.5, 1, f"i = {name}", "center")
    panel.set_label(f"image, {name}")


def _draw_heat(
    panel: "matplotlib.axes.Axes", weights: Float[Tensor, " tokens"], kind: Kind, grid: Grid, token: int
) -> None:
    weights = weights.detach().cpu().float()
    patches = weights[grid.prefix :].reshape(grid.height, grid.width)
    highest = draw_heat_map(panel, patches, _extent(grid))
    _outline(panel, grid, token)
    draw_scale(panel, "0", _number(highest, kind))
    if grid.prefix:
        whose = "class token" if grid.prefix == 1 else "class token, registers"
        given = _number(weights[: grid.prefix].sum().item(), kind)
        write_below(panel, 0.0, 2, f"{whose}: {given}", "left")


def _number(value: float, kind: Kind) -> str:
    """A weight of a matrix as a percentage, a norm as it is."""
    return percent(value) if kind == "matrix" or value == 0 else f"{value:.3g}"


def _extent(grid: Grid) -> Extent:
    return 0, grid.width, grid.height, 0


def _outline(panel: "matplotlib.axes.Axes", grid: Grid, token: int) -> None:
    """A frame around the query's patch; class token and registers have no place in the image."""
    if token >= grid.prefix:
        row, col = divmod(token - grid.prefix, grid.width)
        draw_frame(panel, col, row, 1, 1)
