"""Every picture's tools: tensors in, pictures out.

colours.py     the colours that all pictures share
names.py       names of classes, files and runs, as a page or a picture can hold them
figure.py      a matplotlib figure in which no text is mathematics, and which shows itself in a notebook
panels.py      a figure of panels below a title and captions; frames, and words beneath a panel
heat_maps.py   an image, or a heat map with its colour scale, in a panel
principal.py   maps of many channels as colours
plots.py       curves against epochs or minutes, points with intervals, and draws with their medians
boxes.py       boxes with captions on an image
png.py         a figure as PNG, in a file or in a page; images in a page
svg.py         a figure as SVG in a page

Matplotlib takes a second to import, so only the functions that draw with it import it.
"""
