"""Boxes with captions on an image, and words in its corner."""

import math
from collections.abc import Sequence

from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from regard.draw.colours import COLOURS, is_bright
from regard.draw.names import in_one_line

# Pixels of the longer side: a smaller image is enlarged by a whole factor, so that captions can be read.
SMALLEST = 400
# Letters of a caption: of a longer one, the middle is left out, since a score stands at the end.
LONGEST, END = 32, 8


def draw_boxes(
    image: UInt8[Tensor, "3 height width"],
    boxes_xyxy: Float[Tensor, "boxes 4"],
    labels: Sequence[int],
    captions: Sequence[str],
    *,
    text: float = 1 / 40,
    enlarge: bool = True,
) -> Image.Image:
    """The image with each box in the colour of its class, and its caption; a small image is enlarged, if it may be.

    boxes_xyxy: in pixels of the image, the most certain first; one that is not finite has no place and is left out.
    `text` is the height of the captions as a fraction of the longer side; lines grow with it.
    """
    height, width = image.shape[1:]
    factor = max(-(-SMALLEST // max(height, width)), 1) if enlarge else 1
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    picture = picture.resize((width * factor, height * factor), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(picture)
    letters = max(round(max(picture.size) * text), 11)
    line = max(round(letters / 9), 2)
    font = ImageFont.load_default(letters)
    # The most certain boxes are drawn last, on top.
    for box, label, caption in reversed(list(zip(boxes_xyxy.tolist(), labels, captions, strict=True))):
        if not all(map(math.isfinite, box)):
            continue
        left, top, right, bottom = (side * factor for side in box)
        colour = COLOURS[label % len(COLOURS)]
        draw.rectangle((left, top, max(right, left), max(bottom, top)), outline=colour, width=line)
        caption = in_one_line(caption)
        if len(caption) > LONGEST:
            caption = f"{caption[: LONGEST - END - 1]}…{caption[-END:]}"
        _, _, text_right, text_bottom = draw.textbbox((0, 0), caption, font=font)
        chip_width, chip_height = text_right + 2 * line, text_bottom + line
        # The caption stands above the box if there is room, else inside it, and not beyond the right edge.
        x = max(min(left, picture.width - chip_width), 0)
        y = top - chip_height if top >= chip_height else top
        draw.rectangle((x, y, x + chip_width, y + chip_height), fill=colour)
        draw.text((x + line, y), caption, fill="black" if is_bright(colour) else "white", font=font)
    return picture


def draw_words(image: UInt8[Tensor, "3 height width"], lines: Sequence[str], *, text: float = 1 / 30) -> Image.Image:
    """The image with lines of words in its upper left corner. `text` is as of `draw_boxes`."""
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(round(max(picture.size) * text), 11))
    words = "\n".join(in_one_line(line, LONGEST) for line in lines)
    _, _, right, bottom = draw.multiline_textbbox((0, 0), words, font=font)
    margin = max(round(bottom / 12), 2)
    draw.rectangle((0, 0, right + 2 * margin, bottom + 2 * margin), fill="black")
    draw.multiline_text((margin, margin), words, fill="white", font=font)
    return picture
