"""Images that a check asks to look at."""

from dataclasses import dataclass

import torch
from jaxtyping import Float32
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from regard.data.boxes.sources import DetectionSource
from regard.data.images.files import BadImage

DRAWN = 4  # images of a kind, at most
LONGEST = 1200  # pixels of a picture's longer side
ENLARGED = 6.0  # times, at most
MARGIN = 4  # pixels around an image


@dataclass(frozen=True)
class Suspect:
    """An image with boxes that look wrong, and why."""

    source: DetectionSource
    index: int
    boxes_xyxy: Float32[Tensor, "boxes 4"]
    """As the data state them: they may reach out of the image, and be inside out."""
    why: str

    @property
    def name(self) -> str:
        return self.source.name(self.index)

    def draw(self) -> Image.Image:
        """The image with its boxes in red, and a margin for boxes that reach out of it, by up to half of its size."""
        height, width = self.source.sizes[self.index]
        try:
            pixels = self.source.read(self.index)
            picture = Image.fromarray(pixels.permute(1, 2, 0).expand(-1, -1, 3).contiguous().numpy())
        except BadImage:
            picture = Image.new("RGB", (width, height), "lightgrey")
        first, last = self.boxes_xyxy.chunk(2, dim=1)
        limit = torch.tensor([width, height])
        start, end = (
            torch.minimum(corner.clamp(min=-limit / 2), limit * 1.5)
            for corner in (torch.minimum(first, last), torch.maximum(first, last))
        )
        least = torch.cat([torch.zeros(1, 2), start]).amin(0).floor() - MARGIN
        most = torch.cat([limit[None], end]).amax(0).ceil() + MARGIN
        scale = min(LONGEST / float((most - least).max()), ENLARGED)

        def placed(corner: Tensor) -> list[float]:
            return ((corner - least) * scale).tolist()

        right, bottom = (round(side) for side in placed(most))
        left, top = (round(side) for side in placed(torch.zeros(2)))
        canvas = Image.new("RGB", (right, bottom + 28), "white")
        canvas.paste(picture.resize((round(width * scale), round(height * scale))), (left, top))
        draw = ImageDraw.Draw(canvas)
        for box in zip(start, end, strict=True):
            draw.rectangle([side for corner in box for side in placed(corner)], outline="red", width=2)
        draw.text((6, bottom + 6), self.why, fill="black", font=ImageFont.load_default(14))
        return canvas
