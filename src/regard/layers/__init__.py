"""What models are built of: the grid, patch embedding, positions, the MLP and the block."""

from regard.layers.block import MLP, Block, DropPath, LayerScale, Trace
from regard.layers.grid import Grid
from regard.layers.patch_embed import PatchEmbed
from regard.layers.positions import LearnedPositions, SinePositions

__all__ = ["MLP", "Block", "DropPath", "Grid", "LayerScale", "LearnedPositions", "PatchEmbed", "SinePositions", "Trace"]
