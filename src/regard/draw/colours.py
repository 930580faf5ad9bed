"""The colours that all pictures share."""

# Lines and letters. `svg.inline_svg` replaces this value by the text colour of the page around the figure, so no other
# colour may be equal to it.
INK = "#1b1d22"
# Matplotlib's colour maps: for values from zero on, and for values on both sides of zero.
HEAT = "magma"
SIGNED = "RdBu_r"
# The frame around a token or window.
OUTLINE = "#19c3e6"

# Lines in plots, after Okabe and Ito, whose colours colour-blind readers can tell apart; the blue is lighter for dark
# pages, and the yellow darker for white ones.
PALETTE = ("#2080c3", "#d55e00", "#009e73", "#c5679b", "#e69f00", "#56b4e9", "#8f8f96", "#a89a00")
# Boxes on an image: Okabe and Ito's colours and some more.
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#ffffff", "#7f3fbf", "#66c2a5")


def is_bright(colour: str) -> bool:
    """Whether black letters can be read on a colour "#rrggbb"."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue > 140
