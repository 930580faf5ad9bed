"""`regard.features` and `regard features`: what a model sees in the images of an address, for other tools."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch.testing import assert_close

import regard
from regard.cli.main import main
from regard.errors import RegardError
from regard.weights import CATALOGUE

RUNS = Path(__file__).parents[2] / "golden_runs"
BOX = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


@pytest.fixture
def photos(tmp_path):
    """Six pictures of two classes, two of them held out."""
    draw = np.random.default_rng(0)
    for number in range(6):
        part = "val" if number > 3 else "train"
        file = tmp_path / "photos" / part / ("cat", "dog")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (20, 14 + number, 3), dtype=np.uint8)).save(file)
    return tmp_path / "photos"


@pytest.fixture
def boxes(tmp_path):
    """Three pictures with boxes as VOC has them, the last held out."""
    root = tmp_path / "voc"
    objects = [[("cat", 1, 1, 20, 10), ("dog", 5, 6, 40, 30)], [], [("dog", 3, 4, 10, 12)]]
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for number, of_image in enumerate(objects):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{number}.png")
        size = "<size><width>60</width><height>40</height><depth>3</depth></size>"
        text = "".join(BOX.format(*values) for values in of_image)
        xml = f"<annotation><filename>{number}.png</filename>{size}{text}</annotation>"
        (root / "Annotations" / f"{number}.xml").write_text(xml, encoding="utf-8")
    (root / "ImageSets" / "Main" / "train.txt").write_text("0\n1\n", encoding="utf-8")
    (root / "ImageSets" / "Main" / "val.txt").write_text("2\n", encoding="utf-8")
    return root


def test_a_classifier_gives_what_its_head_reads(photos, tmp_path):
    run = RUNS / "classification"
    found = regard.features(f"folder:{photos}", run, folder=tmp_path / "store", device="cpu")
    classifier = regard.load(run, device="cpu")
    assert [Path(name).name for name in found.names] == ["0.png", "2.png", "1.png", "3.png", "4.png", "5.png"]
    assert found.part.tolist() == [0, 0, 0, 0, 1, 1]
    assert found.labels.tolist() == [0, 0, 1, 1, 0, 1]
    assert found.class_names == ("cat", "dog")
    logits = classifier.model.head(found.features)
    answers = classifier.predict(list(found.names))
    for row, answer in zip(logits.softmax(1), answers, strict=True):
        assert_close(row.max().item(), answer.probabilities[0], rtol=0, atol=1e-4)
    assert found.boxes_xyxy is None


def test_a_detector_gives_the_mean_of_its_backbones_last_map(boxes, tmp_path):
    run = RUNS / "detection"
    found = regard.features(f"voc:{boxes}", run, folder=tmp_path / "store", device="cpu")
    detector = regard.load(run, device="cpu")
    with torch.no_grad():
        wanted = [detector.model.backbone(detector.prepare(name)[None]).mean((0, 2, 3)) for name in found.names]
    assert_close(found.features, torch.stack(wanted), rtol=0, atol=1e-4)
    assert found.labels is None
    assert found.boxes_xyxy.tolist() == [[0, 0, 20, 10], [4, 5, 40, 30], [2, 3, 10, 12]]
    assert found.box_labels.tolist() == [0, 1, 1]
    assert found.box_image.tolist() == [0, 0, 2]
    assert found.part.tolist() == [0, 0, 1]


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["regard", "features", *map(str, arguments), "--folder", str(tmp_path / "s")])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_the_command_writes_a_file_that_other_tools_read(command, photos, tmp_path):
    file = tmp_path / "made" / "photos.safetensors"
    (photos / "train" / "cat" / "2.png").write_bytes(b"no image")
    status, out, err = command(
        f"folder:{photos}", "--model", RUNS / "classification", "-o", file, "--set", "data.on_bad_image=skip"
    )
    assert status == 0, err
    assert out == f"{file}: 3 images to train on and 2 held out; 16 features each\n"
    assert "left out: " in err
    assert "2.png" in err
    with safe_open(file, "pt") as opened:
        assert set(opened.keys()) == {"features", "part", "labels"}
        assert opened.get_tensor("features").shape == (5, 16)
        assert opened.get_tensor("features").dtype == torch.float32
        assert opened.get_tensor("labels").tolist() == [0, 1, 1, 0, 1]
        assert opened.get_tensor("part").tolist() == [0, 0, 0, 1, 1]
        notes = {name: json.loads(text) for name, text in opened.metadata().items()}
    assert notes["class_names"] == ["cat", "dog"]
    assert [Path(name).name for name in notes["names"]] == ["0.png", "1.png", "3.png", "4.png", "5.png"]
    assert notes["parts"] == ["train", "val"]
    assert notes["model"] == str(RUNS / "classification")
    assert notes["preprocessing"]["img_size"] == [8, 8]
    assert len(notes["weights_hash"]) == 32
    before = file.read_bytes()
    file.unlink()
    command(f"folder:{photos}", "--model", RUNS / "classification", "-o", file, "--set", "data.on_bad_image=skip")
    assert len(file.read_bytes()) == len(before)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--model", RUNS / "seq2seq", "-o", "f.safetensors"],
            "has no features of images to keep; a run of classifica",
        ),
        (["--model", RUNS / "next_token", "-o", "f.safetensors"], "backbones and detectors of the catalogue: vit_tiny"),
        (["--model", "fnet_base", "-o", "f.safetensors"], "fnet_base: has no features of images to keep"),
        (["--model", "nothing", "-o", "f.safetensors"], "nothing: is not a folder and no pretrained model"),
        (["--model", RUNS / "classification", "-o", "f.npz"], "f.npz: the features are written into one file; name it"),
        (["--model", RUNS / "classification", "-o", "f.safetensors", "--img-size", "9"], "img_size: "),
        (["--model", RUNS / "classification", "-o", "f.safetensors", "--max-gb", "0.000001"], "set features.max_gb to"),
    ],
)
def test_what_cannot_be_had_is_one_line(command, photos, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    status, _, err = command(f"folder:{photos}", *arguments)
    assert status == 1
    assert len(err.splitlines()) == 1, err
    assert says in err
    assert not (tmp_path / "f.safetensors").exists()


def test_text_has_no_features_of_images():
    with pytest.raises(RegardError, match="numbers: features are of images"):
        regard.features("numbers", RUNS / "classification")


@pytest.mark.slow
@pytest.mark.skipif(
    not CATALOGUE["tf_efficientnet_lite0.pytorch_model"].source.is_there, reason="the weights are not installed"
)
def test_a_backbone_of_the_catalogue(photos, tmp_path):
    found = regard.features(
        f"folder:{photos}", "tf_efficientnet_lite0.pytorch_model", img_size=64, folder=tmp_path / "store", device="cpu"
    )
    assert found.features.shape == (6, 320)
    assert found.features.isfinite().all()
    assert found.preprocessing["img_size"] == [64, 64]
