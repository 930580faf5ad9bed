"""What is carried -> one HTML file within the budget, which runs its own script and no other."""

import base64
import io
import json
import re
import zlib
from collections.abc import Sequence
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from regard.draw.names import readable
from regard.errors import RegardError
from regard.explain.explanation import Explanation
from regard.explain.page.carried import CarriedImage, CarriedRun
from regard.files import printable, write_whole

HERE = Path(__file__).parent
BUDGET = 8_000_000  # bytes of the file
SCRIPTS = (
    *("maths.js", "view.js", "pieces.js", "state.js", "drawing.js"),
    *("panels.js", "answer.js", "matrix.js", "controls.js", "app.js"),
)
# Since when browsers have DecompressionStream and Element.replaceChildren, the youngest of what the scripts use.
BROWSERS = "Chrome and Edge since 86, Firefox since 113 and Safari since 16.4"
# Room for the elements around the pieces and for the sentences about what was left out.
MARGIN = 4_000
SMALL = 64  # pixels of the longer side up to which an image is kept without loss


class Page(NamedTuple):
    html: str
    left_out: list[str]
    """Sentences."""


def write_page(runs: Sequence[CarriedRun], path: str | Path, *, budget: int = BUDGET) -> list[str]:
    """Writes the page, and returns what did not fit, in sentences. RegardError where it cannot be written."""
    file = Path(path)
    if file.is_dir():
        raise RegardError(f"{file}: is a folder; name the page's file, as in {file / 'out.html'}")
    page = page_html(runs, budget=budget)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RegardError(f"{file}: the page cannot be written: {error}") from error
    write_whole(file, lambda beside: beside.write_text(page.html, encoding="utf-8"))
    return page.left_out


def page_html(runs: Sequence[CarriedRun], *, budget: int = BUDGET) -> Page:
    """The page of one run, or of two on the same images. Layers are taken from the last to the first while they fit.

    RegardError where the images and their maps are above the budget without any layer.
    """
    code = code_of_page()
    values: dict[str, Any] = {
        "runs": [{"name": readable(run.name), "images": list(map(_about, run.images))} for run in runs]
    }
    notes = {f"{r}.{i}": list(image.notes) for r, run in enumerate(runs) for i, image in enumerate(run.images)}
    template = (HERE / "page.html.j2").stat().st_size
    own = sum(len(text.encode()) for text in code.values()) + template + MARGIN
    used = own + len(packed(json.dumps(values).encode()))
    if used > budget:
        count = len(runs[0].images)
        raise RegardError(
            f"page: {count} images with their maps take {used / 1e6:.1f} MB without any layer, more than the "
            f"{budget / 1e6:g} MB of a page; name fewer images"
        )
    pieces: dict[str, str] = {}
    left_out: list[str] = []
    missing: dict[str, list[str]] = {}
    for key, name in _in_order(runs):
        run, image, layer = (int(part) for part in key.split("."))
        place = f"{run}.{image}"
        one = runs[run].images[image].layers[layer]
        numbers = one.numbers.tobytes()
        text = "" if place in missing else packed(numbers)
        # q and k hardly compress; counted as they are, which layers fit does not depend on the image.
        size = max(len(text), len(numbers) * 4 // 3 if len(one.arrays) == 2 else 0)
        if place in missing or used + size > budget:
            missing.setdefault(place, []).append(name)
        else:
            pieces[key] = text
            used += size + 60
    for place, names in missing.items():
        run, image = map(int, place.split("."))
        whose = f"{runs[run].name}, {runs[run].images[image].name}"
        told = f"{names[-1]} to {names[0]}" if len(names) > 1 else names[0]
        left_out.append(f"{whose}: the rows of {told} are left out; with them the page is above {budget / 1e6:g} MB")
        notes[place].append(left_out[-1])
    for r, run_values in enumerate(values["runs"]):
        for i, image_values in enumerate(run_values["images"]):
            image_values["notes"] = [readable(note) for note in notes[f"{r}.{i}"]]
            for number, layer in enumerate(image_values["layers"]):
                layer["piece"] = f"p{r}.{i}.{number}" if f"{r}.{i}.{number}" in pieces else None
            image_values["layers"] = [layer for layer in image_values["layers"] if layer["piece"]]
    html = _rendered(code, {"about": packed(json.dumps(values, allow_nan=False).encode()), **pieces}, runs)
    return Page(html, left_out)


def code_of_page() -> dict[str, str]:
    """What stands in each page: `style`, `script`, and `trouble`, which runs before it."""
    style, trouble = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "trouble.js"))
    return {"style": style, "script": script(), "trouble": trouble}


def script() -> str:
    """The modules as one, in the order in which they know each other: without `import`, and without `export`."""
    text = "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    text = re.sub(r"^import\s[^;]*;\n", "", text, flags=re.MULTILINE)
    return re.sub(r"^export (?=const|function|class|async)", "", text, flags=re.MULTILINE)


def _in_order(runs: Sequence[CarriedRun]) -> list[tuple[str, str]]:
    """The layers as they are taken: the last of each image first, then each one's last but one."""
    columns = [
        [(f"{r}.{i}.{number}", layer.name) for number, layer in reversed(list(enumerate(image.layers)))]
        for r, run in enumerate(runs)
        for i, image in enumerate(run.images)
    ]
    return [one for level in zip_longest(*columns) for one in level if one is not None]


def _about(image: CarriedImage) -> dict[str, Any]:
    height, width = image.seen.shape[1:]
    return {
        "name": readable(image.name),
        "src": _picture(image.seen),
        "width": width,
        "height": height,
        "grid": {"height": image.grid.height, "width": image.grid.width, "prefix": image.grid.prefix},
        "layers": [layer.about() for layer in image.layers],
        "bars": [{"name": readable(bar.name), "value": round(bar.probability, 4)} for bar in image.bars],
        "boxes": [
            {
                "name": readable(box.name),
                "score": round(box.score, 4),
                "layers": [[round(x, 1) for x in corners] for corners in box.layers_xyxy],
            }
            for box in image.boxes
        ],
        "maps": list(map(_map, image.maps)),
        "shared": {name: [round(value, 4) for value in curve] for name, curve in image.shared.items()},
        "notes": [],
    }


def _map(found: Explanation) -> dict[str, Any]:
    judged = found.faithfulness
    rows, columns = found.map.shape
    curves = [] if judged is None else [curve.deletion for curve in judged.curves.values()]
    return {
        "method": found.method,
        "says": [readable(line) for line in found.caption],
        "rows": rows,
        "columns": columns,
        "signed": found.signed,
        "values": [float(f"{value:.4g}") for value in found.map.double().flatten().tolist()],
        "verdict": readable(found.verdict),
        "fractions": [] if judged is None else [round(value, 4) for value in judged.fractions],
        "deletion": [round(sum(each) / len(curves), 4) for each in zip(*curves, strict=True)],
        "measured": "" if judged is None else judged.measured,
    }


def _picture(seen: Tensor) -> str:
    from PIL import Image

    pixels = Image.fromarray(seen.expand(3, -1, -1).permute(1, 2, 0).contiguous().cpu().numpy())
    kind = "PNG" if max(pixels.size) <= SMALL else "JPEG"
    file = io.BytesIO()
    pixels.save(file, kind, **({} if kind == "PNG" else {"quality": 88}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def packed(data: bytes) -> str:
    """Deflated, in base64, as pieces.js inflates it."""
    return base64.b64encode(zlib.compress(data, 9)).decode()


def _rendered(code: dict[str, str], pieces: dict[str, str], runs: Sequence[CarriedRun]) -> str:
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return printable(
        environment.get_template("page.html.j2").render(
            title=readable(" and ".join(run.name for run in runs)),
            policy=policy_of(code),
            browsers=BROWSERS,
            **{name: Markup(text) for name, text in code.items()},
            pieces={f"p{key}" if key != "about" else key: Markup(text) for key, text in pieces.items()},
        )
    )


def policy_of(code: dict[str, str]) -> str:
    """A content security policy: the style and the scripts of the page, pictures in it, and nothing else."""
    policy = {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": _hash(code["style"]),
        "script-src": f"{_hash(code['trouble'])} {_hash(code['script'])}",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in policy.items())


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"
