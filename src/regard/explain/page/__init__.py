"""The page: one HTML file to look around in what models take from images. It opens from disk and asks for nothing.

carried.py      model, image -> q and k of each layer, or its rows; maps with their faithfulness; boxes
writer.py       what is carried -> compressed pieces within the budget -> the HTML file

trouble.js      what keeps the page from being shown, in words that old browsers read
maths.js        half floats, the softmax row, words; no document, so that node can import it
view.js         what is looked at, and how the page's address holds it
pieces.js       the pieces of the file, inflated when they are needed
state.js        what the file holds and what of it is looked at; `go` looks at something else
drawing.js      photograph, heat, thumbnails, curves
panels.js       the photograph with a map over it, and beside another run's
answer.js       bars or boxes, and whether the map is true
matrix.js       small maps of all layers and heads
controls.js     buttons, keys, slider and pointer
app.js          draws the view after each change
page.html.j2, page.css
"""

from regard.explain.page.carried import CarriedImage, CarriedLayer, CarriedRun, carried_image
from regard.explain.page.writer import BUDGET, page_html, write_page

__all__ = ["BUDGET", "CarriedImage", "CarriedLayer", "CarriedRun", "carried_image", "page_html", "write_page"]
