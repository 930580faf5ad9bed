"""csv:PATH on the command line: check, train, predict, evaluate, features."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from regard.training import Run


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """80 images, bright or dark, grey or not, in labels.csv of semicolons."""
    folder, draw = tmp_path_factory.mktemp("table"), np.random.default_rng(0)
    rows = ["image;kind"]
    for number in range(80):
        bright, red = draw.random(2) < 0.5
        pixels = draw.integers(0, 90, (8, 8, 3)) + 120 * bright
        pixels[..., 0] += 40 * red
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        names = [name for name, own in (("bright", bright), ("red", red)) if own] or ["dark"]
        rows.append(f'{number}.png;"{";".join(names)}"')
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder / "labels.csv"


COLUMNS = ("--set", "data.file_column=image", "--set", "data.label_column=kind")


def test_a_table_is_checked_trained_on_measured_and_used(regard, tiny, table, tmp_path):
    found = regard("data", "check", f"csv:{table}", *COLUMNS)
    assert found.status == 0
    assert "labels.csv is read as UTF-8 with semicolons between cells" in found.out
    assert "images to train on" in found.out
    assert "has no column 'file'" in regard("data", "check", f"csv:{table}").fails("'image', 'kind'")
    options = [*tiny("model.in_chans=3", "augment.shift=0"), *COLUMNS, "--out", tmp_path / "run"]
    told = regard("train", "vit-digits", "--data", f"csv:{table}", *options)
    assert told.status == 0, told.err
    assert told.out.startswith("map 0.")
    assert "labels.csv is read as UTF-8 with semicolons between cells" in told.err
    summary = Run(tmp_path / "run").summary()

    whole = json.loads(regard("evaluate", tmp_path / "run", "--json").out)
    assert whole["map"] == pytest.approx(summary["map"], abs=1e-6)
    assert [row["name"] for row in whole["per_class"]] == ["bright", "dark", "red"]
    assert np.array(whole["confusion"]).shape == (3, 2, 2)
    told = regard("evaluate", tmp_path / "run")
    assert all(word in told.out for word in ("AP", "threshold", "F1", "exact_match"))

    image = table.parent / "3.png"
    (one,) = json.loads(regard("predict", tmp_path / "run", image, "--json").out)
    assert one["file"] == str(image)
    assert one["probabilities"].keys() == {"bright", "dark", "red"}
    assert one["labels"] == [name for name, p in one["probabilities"].items() if p >= 0.5]
    (row,) = csv.DictReader(io.StringIO(regard("predict", tmp_path / "run", image, "--csv", "--threshold", "0").out))
    assert sorted(row["label"].split(";")) == ["bright", "dark", "red"]
    assert len(row["probability"].split(";")) == 3
    none = regard("predict", tmp_path / "run", image, "--threshold", "1")
    assert "none" in none.out
    top = json.loads(regard("predict", tmp_path / "run", image, "--json", "--top", "2").out)
    assert [entry["probability"] for entry in top] == sorted((e["probability"] for e in top), reverse=True)
    assert len(top) == 2
    regard("predict", tmp_path / "run", image, "--threshold", "3").fails("between 0 and 1")
    regard("evaluate", tmp_path / "run", "--knn").fails("--knn is for images that have one class each")

    places = ("-o", tmp_path / "f.safetensors", "--folder", tmp_path / "store")
    told = regard("features", f"csv:{table}", "--model", tmp_path / "run", *places, *COLUMNS)
    assert told.status == 0, told.err
    assert load_file(tmp_path / "f.safetensors")["labels"].shape == (80, 3)


def test_bad_tables_are_one_line(regard, table, tmp_path):
    rows = table.read_text().splitlines()
    bad = table.parent / "bad.csv"
    bad.write_text("\n".join([*rows, "gone.png;red", "0.png;"]))
    told = regard("train", "vit-digits", "--data", f"csv:{bad}", *COLUMNS, "--out", tmp_path / "run")
    told.fails("1 files are not there: gone.png (line 82)", "1 rows have an empty label", "data.on_bad_annotation=skip")
    assert not (tmp_path / "run").exists()
    found = regard("data", "check", f"csv:{bad}", *COLUMNS)
    assert found.status == 1
    assert "--set data.on_bad_annotation=skip leaves them out" in " ".join(found.out.split())
    found = regard("data", "check", f"csv:{bad}", *COLUMNS, "--set", "data.on_bad_annotation=skip")
    assert found.status == 0
