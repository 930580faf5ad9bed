"""The two pictures of docs/your-own-photographs.md: predictions of kept runs for held-out images, small."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

import regard
from regard.data import open_detection, open_images

WIDTH = 480  # pixels
SHOWN = 10  # images of hands
RUNS = {"bccd": "bccd-detr-small-10-min-seed-0", "signdigits": "signdigits-finetune-photos-all-3-min-seed-0"}


def draw(runs: Path, photos: Path, out: Path, page: str) -> None:
    """Writes OUT/PAGE-bccd.jpg and OUT/PAGE-signdigits.jpg, each where its run was kept."""
    for data, picture in (("bccd", cells), ("signdigits", hands)):
        if (runs / RUNS[data]).is_dir():
            picture(runs / RUNS[data], photos / data).save(out / f"{page}-{data}.jpg", quality=80)
        else:
            print(f"{runs / RUNS[data]}: there is no such run; the picture stays as it is")


def cells(run: Path, photos: Path) -> Image.Image:
    """The first held-out image with its boxes."""
    image = open_detection(f"voc:{photos}").val.name(0)
    drawn = regard.load(run).predict(image).draw().convert("RGB")
    drawn.thumbnail((WIDTH, WIDTH))
    return drawn


def hands(run: Path, photos: Path) -> Image.Image:
    """Held-out images, evenly over the classes, each with the class that is predicted and how sure that is."""
    source = open_images(f"folder:{photos}", channels=3, val_fraction=0.2, split_seed=0).val
    chosen = sorted(range(len(source)), key=lambda index: source.labels[index])[:: max(len(source) // SHOWN, 1)][:SHOWN]
    figure = Figure(figsize=(6.0, 2.9), layout="constrained", dpi=WIDTH / 6)
    found = regard.load(run).predict([source.name(index) for index in chosen])
    for place, (index, one) in enumerate(zip(chosen, found, strict=True), start=1):
        axes = figure.add_subplot(2, SHOWN // 2, place)
        axes.imshow(source.read(index).permute(1, 2, 0).numpy())
        axes.set_title(f"{one.label} {one.score:.2f}", fontsize=8)
        axes.axis("off")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")
