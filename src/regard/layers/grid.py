"""How tokens lie on an image."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from regard.errors import RegardError


@dataclass(frozen=True)
class Grid:
    """`prefix` tokens (class token, registers) first, then height × width patches, row by row."""

    height: int
    width: int
    prefix: int = 0

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1 or self.prefix < 0:
            raise RegardError(f"grid: height and width must be at least 1 and prefix at least 0, got {self}")

    @property
    def num_patches(self) -> int:
        return self.height * self.width

    @property
    def num_tokens(self) -> int:
        return self.prefix + self.num_patches

    def split(
        self, x: Float[Tensor, "batch tokens embed_dim"]
    ) -> tuple[Float[Tensor, "batch prefix embed_dim"], Float[Tensor, "batch height width embed_dim"]]:
        """The prefix tokens, and the patches as a picture."""
        return x[:, : self.prefix], x[:, self.prefix :].unflatten(1, (self.height, self.width))
