"""The page's file: what it carries, its budget, and the numbers that its JavaScript makes of that."""

import base64
import json
import re
import shutil
import subprocess
import zlib
from hashlib import sha256

import numpy as np
import pytest
import torch
from tests_of_explain import vit

from regard.errors import RegardError
from regard.explain import rows
from regard.explain.page import CarriedRun, carried_image, page_html, write_page
from regard.explain.page.writer import HERE, SCRIPTS, code_of_page, script

IMAGE = torch.randn(3, 12, 20, generator=torch.Generator().manual_seed(3))
SEEN = torch.randint(0, 255, (3, 12, 20), dtype=torch.uint8)
NODE = shutil.which("node")
NAMES = tuple("abcde")


def carried(model, **more):
    return carried_image(model, IMAGE, SEEN, name="a.png", class_names=NAMES, **more)


def pieces_of(html):
    found = re.findall(r'<script type="text/plain" id="([^"]+)">([^<]+)</script>', html)
    return {name: zlib.decompress(base64.b64decode(text)) for name, text in found}


@pytest.fixture(scope="module")
def model():
    return vit()


@pytest.fixture(scope="module")
def run(model):
    return CarriedRun("a run", [carried(model)])


def test_it_carries_q_and_k_whose_softmax_is_the_row(model, run):
    html, left_out = page_html([run])
    assert left_out == []
    pieces = pieces_of(html)
    about = json.loads(pieces["about"])["runs"][0]["images"][0]
    assert [layer["name"] for layer in about["layers"]] == ["blocks.0", "blocks.1", "blocks.2"]
    assert about["grid"] == {"height": 3, "width": 5, "prefix": 1}
    assert [bar["name"] for bar in about["bars"]] == [
        NAMES[place] for place in model(IMAGE[None])[0].argsort(descending=True)
    ]
    q, k = np.frombuffer(pieces["p0.0.2"], "<f2").astype(np.float64).reshape(2, 3, 16, 4)
    weights = torch.tensor(q @ k.transpose(0, 2, 1)).softmax(-1)
    exact = rows(model, IMAGE[None], queries="all", layers=2)[0].weights[0]
    torch.testing.assert_close(weights, exact.double(), atol=2e-3, rtol=0)


@pytest.mark.skipif(NODE is None, reason="there is no node")
@pytest.mark.parametrize("mixer", ["attention", "local", "performer", "fourier", "conv", "mlp", "lstm", "none"])
def test_the_javascript_gives_the_rows_that_python_gives(mixer, tmp_path):
    model = vit(mixer, pool="avg") if mixer not in ("attention", "performer") else vit(mixer)
    pieces = pieces_of(page_html([CarriedRun("a run", [carried(model, methods=())])]).html)
    about = json.loads(pieces["about"])["runs"][0]["images"][0]
    layer = about["layers"][1]
    (tmp_path / "numbers").write_bytes(pieces[layer["piece"]])
    code = f"""
        import {{ readFileSync }} from "node:fs";
        import {{ fromHalf, rowOf, sentence, tokenName }} from {json.dumps((HERE / "maths.js").as_uri())};
        const numbers = fromHalf(readFileSync("numbers")), layer = {json.dumps(layer)};
        const grid = {json.dumps(about["grid"])};
        const row = rowOf(layer, numbers, layer.heads - 1, 7), mean = rowOf(layer, numbers, -1, 7);
        console.log(JSON.stringify({{row: [...row], mean: [...mean], name: tokenName(grid, 7),
          told: sentence(grid, tokenName(grid, 7), mean, layer.kind)}}));
    """
    (tmp_path / "check.mjs").write_text(code, encoding="utf-8")
    answer = subprocess.run([NODE, "check.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True)
    found = json.loads(answer.stdout)
    exact = rows(model, IMAGE[None], queries=[7], layers=1)[0]
    of_size = 1.0 if exact.kind == "matrix" else exact.weights.max().item()
    for mine, theirs in ((found["row"], exact.weights[0, -1, 0]), (found["mean"], exact.mean[0, 0])):
        torch.testing.assert_close(torch.tensor(mine, dtype=torch.float32), theirs.float(), atol=2e-3 * of_size, rtol=0)
    prefix = about["grid"]["prefix"]
    assert found["name"] == f"patch ({(7 - prefix) // 5}, {(7 - prefix) % 5})"
    best = int(exact.mean[0, 0, prefix:].argmax())
    assert f"({best // 5}, {best % 5})" in found["told"]


@pytest.mark.skipif(NODE is None, reason="there is no node")
def test_half_floats_words_and_the_address_in_javascript(tmp_path):
    values = np.array([0, 1, -2.5, 65504, 6e-8, 5.9e-5, np.inf, 0.333], dtype="<f2")
    (tmp_path / "half").write_bytes(values.tobytes())
    code = f"""
        import {{ readFileSync }} from "node:fs";
        import {{ fromHalf, percent, sentence }} from {json.dumps((HERE / "maths.js").as_uri())};
        import {{ fromHash, toHash }} from {json.dumps((HERE / "view.js").as_uri())};
        const view = {{run: 1, image: 2, layer: "blocks.3", head: -1, token: 9, method: "row", compare: true}};
        const grid = {{height: 4, width: 6, prefix: 0}}, row = new Float32Array(24);
        row[3 * 6 + 5] = 0.12;
        console.log(JSON.stringify({{half: [...fromHalf(readFileSync("half"))].map(String), hash: toHash(view),
          same: fromHash("#" + toHash(view)), odd: fromHash("#run=x&head=2&token=-1&no=1"),
          told: sentence(grid, "patch (3, 4)", row, "matrix"), few: percent(0.0009), none: percent(0)}}));
    """
    (tmp_path / "check.mjs").write_text(code, encoding="utf-8")
    answer = subprocess.run([NODE, "check.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True)
    found = json.loads(answer.stdout)
    assert [float(text.replace("Infinity", "inf")) for text in found["half"]] == values.astype(float).tolist()
    assert found["hash"] == "run=1&image=2&layer=blocks.3&head=mean&token=9&method=row&compare=1"
    assert found["same"] == {
        "run": 1,
        "image": 2,
        "layer": "blocks.3",
        "head": -1,
        "token": 9,
        "method": "row",
        "compare": True,
    }
    assert found["odd"] == {"head": 2}
    assert found["told"] == "patch (3, 4) takes 12% from (3, 5)"
    assert (found["few"], found["none"]) == ("0.09%", "0%")


def _of(run, budget):
    """The layers in a page of that budget."""
    try:
        html = page_html([run], budget=budget).html
    except RegardError:
        return []
    return json.loads(pieces_of(html)["about"])["runs"][0]["images"][0]["layers"]


def test_what_does_not_fit_is_said_from_the_first_layer_on(run):
    # q and k of 3 heads, 16 tokens and 4 values take 768 bytes, 1,024 as base64.
    least = next(budget for budget in range(20_000, 60_000, 256) if len(_of(run, budget)) > 0)
    assert [len(_of(run, least + more)) for more in (1_100, 2_200)] == [2, 3]
    html, left_out = page_html([run], budget=least + 1_100)
    assert len(left_out) == 1
    assert left_out[0].startswith("a run, a.png: the rows of blocks.0 are left out; with them the page is above 0.0")
    assert page_html([run], budget=least).left_out[0].startswith("a run, a.png: the rows of blocks.0 to blocks.1 are")
    assert len(html) <= least + 1_100
    about = json.loads(pieces_of(html)["about"])["runs"][0]["images"][0]
    assert about["layers"][-1]["name"] == "blocks.2"
    assert left_out[0] in about["notes"]
    with pytest.raises(RegardError, match=r"1 images with their maps take .* name fewer images"):
        page_html([run], budget=20_000)


def test_it_runs_its_own_script_alone(run):
    html = page_html([run]).html
    assert sum(len(text.encode()) for text in code_of_page().values()) < 60_000
    assert not re.search(r"^(import|export)\s", script(), re.MULTILINE)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)[1].replace("&#39;", "'")
    code = re.search(r'<script type="module">(.*)</script>', html, re.DOTALL)[1]
    first = re.search(r"<script>(.*?)</script>", html, re.DOTALL)[1]
    style = re.search(r"<style>(.*)</style>", html, re.DOTALL)[1]
    for text in (code, first, style):
        assert base64.b64encode(sha256(text.encode()).digest()).decode() in policy
    assert "default-src 'none'" in policy
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", html)


def test_names_from_outside_are_escaped(model):
    evil = "</script><script>alert(1)</script>"
    image = carried_image(model, IMAGE, SEEN, name=evil, class_names=[evil] * 5, methods=())
    html = page_html([CarriedRun(evil, [image])]).html
    assert "<script>alert" not in html


def test_maps_that_do_not_serve_become_notes_and_the_others_are_judged():
    found = carried(vit("fourier", pool="avg"), judged=IMAGE)
    assert [one.method for one in found.maps] == ["gradient", "gradient-x-input"]
    assert any(note.startswith("rollout") for note in found.notes)
    assert all(len(curve) == len(found.maps[0].faithfulness.fractions) for curve in found.shared.values())


def test_a_page_that_cannot_be_written(run, tmp_path):
    with pytest.raises(RegardError, match="is a folder"):
        write_page([run], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RegardError, match="cannot be written"):
        write_page([run], tmp_path / "file" / "out.html")
    write_page([run], tmp_path / "new" / "out.html")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["out.html"]


def test_each_script_stands_in_the_page():
    assert {file.name for file in HERE.glob("*.js")} == {*SCRIPTS, "trouble.js"}


@pytest.mark.skipif(NODE is None, reason="there is no node")
def test_the_modules_are_one_without_a_name_given_twice(tmp_path):
    (tmp_path / "page.mjs").write_text(script(), encoding="utf-8")
    answer = subprocess.run([NODE, "--check", "page.mjs"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
