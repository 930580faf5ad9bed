"""Bounds of configurations: above any model that was ever trained, and below what a stranger's file could harm with."""

from typing import Annotated

from annotated_types import Interval, Len

Depth = Annotated[int, Interval(gt=0, le=10_000)]
"""Layers of one kind."""
DepthOrNone = Annotated[int, Interval(ge=0, le=10_000)]
Width = Annotated[int, Interval(gt=0, le=1_000_000)]
"""Channels, heads, windows, points."""
Side = Annotated[int, Interval(gt=0, le=100_000)]
"""Pixels along one side of an image, of a patch, of a stride."""
Count = Annotated[int, Interval(gt=0, le=100_000_000)]
"""Classes, words, tokens, queries."""
CountOrNone = Annotated[int, Interval(ge=0, le=100_000_000)]
Ratio = Annotated[float, Interval(gt=0, le=1_000_000)]
Rate = Annotated[float, Interval(ge=0, lt=1)]
Depths = Annotated[tuple[Depth, ...], Len(1, 100)]
Strides = Annotated[tuple[Side, ...], Len(1, 100)]
