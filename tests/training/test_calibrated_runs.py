"""A detector's run from the training to the report: what is chosen is kept, told, used, and the same when resumed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import regard
from regard.recipes import Recipe, load_recipe
from regard.training import Run, resumed_recipe, train

SMALL = (
    *("model.embed_dim=32", "model.num_heads=4", "model.num_queries=20", "model.num_denoising=6", "augment.mosaic=0"),
    *("data.shortest=64", "data.longest=64", "train.max_steps=3", "train.batch_size=4", "train.device=cpu"),
    *("train.precision=fp32", "train.evaluate_every_steps=3", "train.save_every_steps=1", "evaluate.calibration=0.5"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Twelve images to train on and three held out, with ten dark squares each, as YOLO's files have them."""
    folder = tmp_path_factory.mktemp("data") / "yolo"
    for split, count in (("train", 12), ("val", 3)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(count):
            draw = np.random.default_rng([number, count])
            pixels, lines = draw.integers(120, 256, (64, 64, 3), dtype=np.uint8), []
            for place in draw.permutation(16)[:10]:
                left, top = 16 * (place % 4) + 2, 16 * (place // 4) + 2
                pixels[top : top + 10, left : left + 10] //= 4
                lines.append(f"{place % 2} {(left + 5) / 64} {(top + 5) / 64} {10 / 64} {10 / 64}")
            Image.fromarray(pixels).save(folder / "images" / split / f"{number}.png")
            (folder / "labels" / split / f"{number}.txt").write_text("\n".join(lines), encoding="utf-8")
    lines = ["path: .", "train: images/train", "val: images/val", "names: [even, odd]"]
    (folder / "data.yaml").write_text("\n".join(lines), encoding="utf-8")
    return folder


def recipe(data: Path, *settings: str) -> Recipe:
    return load_recipe("detr-small", [*SMALL, *settings], address=f"yolo:{data}")


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(recipe(data), folder)
    return folder


def calibration(run: Path) -> dict:
    return json.loads((run / "metadata.json").read_text(encoding="utf-8"))["calibration"]


def test_a_run_keeps_what_was_chosen_and_measures_by_it(finished):
    chosen, summary = calibration(finished), Run(finished).summary()
    assert (chosen["source"], chosen["images"], chosen["objects"]) == ("measured", 6, 60)
    assert set(chosen["thresholds"]) == {"even", "odd"}
    detector = regard.load(finished)
    assert detector.calibration.to_dict() == chosen
    evaluation = regard.evaluate(finished)
    assert evaluation.nms == (None if chosen["nms"] == "off" else chosen["nms"])
    figures = evaluation.metrics()
    for name in ("ap", "ap50", "ap_raw", "ap50_raw", "twins", "twins_raw"):
        assert summary[name] == pytest.approx(figures[name], abs=1e-6), name
    raw = regard.evaluate(finished, nms="off").metrics()
    assert (raw["ap"], raw["twins"]) == pytest.approx((figures["ap_raw"], figures["twins_raw"]))
    last = [record for record in Run(finished).history() if record["kind"] == "val"][-1]
    assert last["step"] == 3
    assert last["ap"] == summary["ap"]
    again = regard.save(detector, finished.parent / "saved")
    assert regard.load(again).calibration == detector.calibration


def test_a_run_that_was_killed_chooses_the_same(data, finished, tmp_path, monkeypatch):
    """Whether before the choice, or between the choice and the end."""
    for name in ("regard.tasks.DetectionTask.finish", "regard.training.Run.add_metadata"):
        folder = tmp_path / name
        monkeypatch.setattr(name, _stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe(data), folder)
        monkeypatch.undo()
        assert calibration(folder)["source"] == "default"
        train(resumed_recipe(Run(folder)), folder, resume=True)
        assert calibration(folder) == calibration(finished)
        keys = ("ap", "ap50", "ap_raw", "twins", "twins_raw", "loss", "best")
        assert [Run(folder).summary()[key] for key in keys] == [Run(finished).summary()[key] for key in keys]
    train(resumed_recipe(Run(folder)), folder, resume=True)  # of a run that has ended
    assert Run(folder).summary()["ap"] == Run(finished).summary()["ap"]


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_run_of_before_is_resumed_without_any(data, tmp_path):
    """Its recipe says nothing of suppression, and nothing is held out of its training."""
    folder, plain = tmp_path / "run", recipe(data, "evaluate.nms=off", "evaluate.calibration=0")
    train(plain, folder)
    text = (folder / "recipe.toml").read_text(encoding="utf-8")
    (folder / "recipe.toml").write_text(
        text.replace('[evaluate]\nnms = "off"\ncalibration = 0.0\n', ""), encoding="utf-8"
    )
    assert "[evaluate]" not in (folder / "recipe.toml").read_text(encoding="utf-8")
    train(resumed_recipe(Run(folder), ["train.max_steps=4"]), folder, resume=True)
    assert Run(folder).summary()["steps"] == 4
    assert regard.load(folder).calibration is None
    assert regard.evaluate(folder).nms is None
    summary = Run(folder).summary()
    assert (summary["ap"], summary["twins"]) == (summary["ap_raw"], summary["twins_raw"])


def test_it_is_told(data, tmp_path, capsys):
    train(recipe(data, "evaluate.calibration=0.1"), tmp_path / "few")
    told = (
        "boxes: suppression at IoU 0.7 and score 0.5 by default: the images to measure them on hold 20 objects, and 50"
    )
    assert told in capsys.readouterr().err
    assert calibration(tmp_path / "few")["images"] == 2
    shutil.rmtree(tmp_path / "few")
