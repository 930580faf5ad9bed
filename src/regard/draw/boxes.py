"""Boxes on a picture."""

from collections.abc import Sequence

from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

# Okabe and Ito's colours and some more, which stay apart for colour-blind readers; classes take them in turn.
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#ffffff", "#7f3fbf", "#66c2a5")
# Pixels of the longer side: a smaller picture is enlarged by a whole factor, so that names can be read.
SMALLEST = 400


def draw_boxes(
    image: UInt8[Tensor, "3 height width"],
    boxes_xyxy: Float[Tensor, "boxes 4"],
    labels: Sequence[int],
    captions: Sequence[str],
    *,
    text: float = 1 / 40,
) -> Image.Image:
    """The image with a box in the colour of its class and a caption for each; a small one is enlarged.

    `text` is how large the captions are, as a share of the longer side; lines grow with them.
    """
    height, width = image.shape[1:]
    factor = max(-(-SMALLEST // max(height, width)), 1)
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    picture = picture.resize((width * factor, height * factor), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(picture)
    letters = max(round(max(picture.size) * text), 11)
    line = max(round(letters / 9), 2)
    font = ImageFont.load_default(letters)
    # The most certain come first, and are drawn last, on top.
    for box, label, caption in reversed(list(zip(boxes_xyxy.tolist(), labels, captions, strict=True))):
        left, top, right, bottom = (side * factor for side in box)
        colour = COLOURS[label % len(COLOURS)]
        draw.rectangle((left, top, max(right, left), max(bottom, top)), outline=colour, width=line)
        _, _, text_right, text_bottom = draw.textbbox((0, 0), caption, font=font)
        chip_width, chip_height = text_right + 2 * line, text_bottom + line
        # Above the box where there is room, else within it; and not beyond the right edge.
        x = max(min(left, picture.width - chip_width), 0)
        y = top - chip_height if top >= chip_height else top
        draw.rectangle((x, y, x + chip_width, y + chip_height), fill=colour)
        draw.text((x + line, y), caption, fill="black" if is_bright(colour) else "white", font=font)
    return picture


def is_bright(colour: str) -> bool:
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue > 140
