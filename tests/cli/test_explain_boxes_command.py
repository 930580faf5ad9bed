"""`regard explain` of detectors: sampling points, rows and relevance of a box, and the boxes of each query."""

import json

import pytest
import torch
from PIL import Image

import regard as package
from regard.data import DetectionPreprocessing
from regard.models import build, configure
from regard.tasks import Detector

SMALL = {"num_classes": 2, "embed_dim": 24, "num_heads": 3, "depth": 1, "decoder_depth": 2, "num_queries": 6}


@pytest.fixture(scope="module")
def detectors(tmp_path_factory):
    """One with deformable cross-attention, and a DETR; and a ViT. They are untrained."""
    folder = tmp_path_factory.mktemp("detectors")
    torch.manual_seed(0)
    for preset, name in (("dn_detr_mini", "deformable"), ("detr_mini", "dense")):
        seen = DetectionPreprocessing(64, 96, 3, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        package.save(Detector(build(configure(preset, SMALL)).eval(), ("cat", "dog"), (1, 2), seen), folder / name)
    package.save(build(configure("vit_pico_patch2_8", {"num_classes": 3})).eval(), folder / "classifier")
    return folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for number, size in enumerate(((120, 90), (90, 120), (64, 64))):
        Image.effect_noise(size, 80).convert("RGB").save(folder / f"{number}.png")
    return folder


def test_a_deformable_detector_shows_its_points(regard, detectors, photographs, tmp_path):
    photograph = photographs / "0.png"
    told = regard("explain", detectors / "deformable", photograph, "--box", 1, "--layer", "cross.0", "-o", tmp_path)
    assert (told.status, told.out) == (0, f"{tmp_path / '0-mixing.png'}\n"), told.err
    assert (tmp_path / "0-mixing.png").read_bytes()[:4] == b"\x89PNG"
    (found,) = json.loads(regard("explain", detectors / "deformable", photograph, "--json").out)
    assert (found["method"], found["layer"], found["size"]) == ("points", "cross.1", [64, 85])
    assert len(found["points"]) == 3 * len(found["strides"]) * 4
    assert sum(weight for _, _, weight, _ in found["points"]) == pytest.approx(3, abs=1e-4)
    (rows,) = json.loads(regard("explain", detectors / "deformable", photograph, "--method", "rows", "--json").out)
    assert rows["points"] is None
    assert rows["map"] == found["map"]


def test_a_detr_shows_rows_and_relevance(regard, detectors, photographs, tmp_path):
    of_method = {}
    for method in ("rows", "relevance"):
        told = regard(
            "explain", detectors / "dense", photographs / "1.png", "--method", method, "--json", "-o", tmp_path
        )
        assert told.status == 0, told.err
        (of_method[method],) = json.loads(told.out)
    assert (of_method["rows"]["layer"], of_method["relevance"]["layer"]) == ("cross.1", "all")
    assert of_method["rows"]["box_xyxy"] == of_method["relevance"]["box_xyxy"]
    assert of_method["rows"]["map"] != of_method["relevance"]["map"]
    assert {path.name for path in tmp_path.iterdir()} == {"1-mixing.png", "1-relevance.png"}


def test_the_boxes_of_each_query_over_a_folder(regard, detectors, photographs, tmp_path):
    picture = tmp_path / "out.png"
    told = regard("explain", detectors / "dense", photographs, "--method", "queries", "-o", picture)
    assert (told.status, told.out) == (0, f"{picture}\n"), told.err
    assert picture.read_bytes()[:4] == b"\x89PNG"
    told = regard("explain", detectors / "dense", photographs, "--method", "queries", "--json")
    found = json.loads(told.out)
    assert (found["images"], len(found["queries"])) == (3, 6)
    kinds = ("small", "large_horizontal", "large_vertical")
    assert all(sum(query[kind] for kind in kinds) == 3 for query in found["queries"])
    files = sorted(photographs.iterdir())
    in_python = package.explain_queries(detectors / "dense", files)
    assert found == in_python.to_dict()


@pytest.mark.parametrize(
    ("name", "arguments", "parts"),
    [
        ("dense", ["--method", "points"], ["points: is not there for dense", "rows and relevance"]),
        ("deformable", ["--method", "relevance"], ["relevance: is not there for deformable", "points and rows"]),
        ("dense", ["--method", "gradient"], ["gradient: is of classifiers", "rows, points, relevance"]),
        ("dense", ["--method", "relevance", "--layer", "0"], ["relevance: takes no layer"]),
        ("dense", ["--box", "6"], ["box 6 is not there: the detector has 6 queries"]),
        ("dense", ["--method", "queries", "--layer", "0"], ["--method queries: takes no --layer"]),
        ("deformable", ["--method", "queries"], ["two-stage DNDETR"]),
        ("classifier", ["--method", "queries"], ["classifier: is of classification; queries are of detectors"]),
        ("classifier", ["--method", "points"], ["points are of detectors; a ViT is none"]),
    ],
)
def test_what_is_not_there(regard, detectors, photographs, tmp_path, name, arguments, parts):
    regard("explain", detectors / name, photographs / "2.png", *arguments, "-o", tmp_path / "out.png").fails(*parts)
    assert not (tmp_path / "out.png").exists()
