"""Tiles, which exports hold, are the definition of local attention."""

import pytest
import torch
from torch.testing import assert_close

from regard.ops.local.arguments import Case, Prefix
from regard.ops.local.definition import by_definition
from regard.ops.local.tiles import tiled, tiles_serve


@pytest.mark.parametrize("window", [(1, 1), (3, 5), (7, 7), (13, 9), (31, 31)])
@pytest.mark.parametrize("size", [(1, 1), (5, 11), (14, 8), (23, 19)])
@pytest.mark.parametrize("extra", ["nothing", "embeddings", "mask", "prefix", "all"])
def test_tiles_are_the_definition(window, size, extra):
    height, width = size
    q, k, v = (torch.randn(2, 3, height, width, 4) for _ in range(3))
    rel_rows = rel_cols = mask = prefix = None
    if extra in ("embeddings", "all"):
        rel_rows, rel_cols = torch.randn(window[0], 1), torch.randn(window[1], 3)
    if extra in ("mask", "all"):
        mask = torch.rand(2, height, width) > 0.5
        k, v = (part.masked_fill(~mask[:, None, :, :, None], torch.nan) for part in (k, v))
    if extra in ("prefix", "all"):
        prefix = Prefix(*(torch.randn(2, 3, 2, 4) for _ in range(3)))
    case = Case(*window, 1, "clip", mask, rel_rows, rel_cols, None, 0.7)
    assert tiles_serve(case)
    assert_close(tiled(q, k, v, case, prefix), by_definition(q, k, v, case, prefix), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("changes", [{"dilation": 2}, {"border": "shift"}, {"bias": torch.zeros(3, 7, 7)}])
def test_what_tiles_do_not_serve(changes):
    assert not tiles_serve(Case(7, 7, 1, "clip", None, None, None, None, 1.0)._replace(**changes))
