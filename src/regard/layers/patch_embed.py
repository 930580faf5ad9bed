"""Images into tokens."""

from jaxtyping import Float
from torch import Tensor, nn

from regard.errors import RegardError
from regard.layers.grid import Grid


class PatchEmbed(nn.Module):
    """A convolution of size p and stride p: each p × p patch becomes one token (Dosovitskiy et al. 2020, eq. 1)."""

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.in_chans = in_chans
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)

    def grid(self, height: int, width: int, prefix: int = 0) -> Grid:
        """The grid of an image of height × width pixels; RegardError unless patches tile it."""
        if height % self.patch_size or width % self.patch_size or min(height, width) < 1:
            near = " × ".join(str(max(round(side / self.patch_size), 1) * self.patch_size) for side in (height, width))
            raise RegardError(
                f"an image of {height} × {width} pixels is not whole patches of {self.patch_size}; {near} would be"
            )
        return Grid(height // self.patch_size, width // self.patch_size, prefix)

    def forward(self, images: Float[Tensor, "batch in_chans height width"]) -> Float[Tensor, "batch patches embed_dim"]:
        if images.shape[1] != self.in_chans:
            raise RegardError(f"the images have {images.shape[1]} channels, the model takes {self.in_chans}")
        self.grid(images.shape[2], images.shape[3])  # raises where patches do not tile the image
        return self.proj(images).flatten(2).transpose(1, 2)

    def flops(self, grid: Grid) -> int:
        """Floating-point operations for one image, a multiply and an add as two."""
        return 2 * grid.num_patches * self.proj.weight.numel()
