"""Images with several labels each: trained, tested and compared like others, by their mean average precision."""

import csv

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import regard


@pytest.mark.slow
def test_it_has_a_verdict_and_an_interval_by_groups_of_images(tmp_path):
    digits = load_digits()
    with (tmp_path / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "label"])
        for index, (image, digit) in enumerate(zip(digits.images[:240], digits.target, strict=False)):
            Image.fromarray((image * 15).astype(np.uint8)).save(tmp_path / f"{index}.png")
            rows.writerow([f"{index}.png", f"{'even' if digit % 2 == 0 else 'odd'};{'low' if digit < 5 else 'high'}"])
    found = regard.compare_mixers(
        "conv,none",
        f"csv:{tmp_path / 'labels.csv'}",
        "vit-digits",
        seeds=2,
        out=tmp_path / "out",
        **{"train.epochs": 2, "train.device": "cpu"},
    )
    pair = found.record.pairs[0]
    assert found.record.metric.name == "map"
    assert {pair.a, pair.b} == {"conv", "none"}
    assert pair.low < pair.difference < pair.high
    assert pair.verdict in ("better", "worse", "as good", "cannot tell")
    for one in found.record.contenders:
        assert 0 <= one.low < one.mean < one.high <= 1
    with np.load(tmp_path / "out" / "conv-seed-0" / "test.npz") as held:
        assert all(len(values) == len(held[held.files[0]]) for name, values in held.items() if name == "id")
