"""Runs on csv:PATH with several labels, and on unequal classes: what they leave, and that they resume to the bit."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import regard
from regard.compare import contender, write_report
from regard.errors import RegardError
from regard.recipes import load_recipe
from regard.tasks import create_task
from regard.training import Run, resumed_recipe, train

TINY = (
    *("model.depth=1", "model.embed_dim=16", "model.num_heads=2", "model.in_chans=3", "train.batch_size=32"),
    *("train.device=cpu", "train.evaluate_every=1000", "augment.shift=0"),
)
LABELS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def coloured(tmp_path_factory) -> Path:
    """300 images whose red, green and blue are strong, each for itself: labels.csv; with one of them each: one.csv."""
    folder = tmp_path_factory.mktemp("coloured")
    draw = np.random.default_rng(0)
    several, one = ["file,label"], ["file,label"]
    for number in range(300):
        has_it = draw.random(3) < (0.5, 0.4, 0.3)
        pixels = draw.integers(0, 120, (8, 8, 3)) + 110 * has_it
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        names = [name for name, own in zip(LABELS, has_it, strict=True) if own]
        several.append(f"{number}.png,{';'.join(names)}")
        one.append(f"{number}.png,{names[-1] if names else 'none'}")
    (folder / "labels.csv").write_text("\n".join(several))
    (folder / "one.csv").write_text("\n".join(one))
    return folder


@pytest.fixture
def recipe(coloured):
    def make(*settings, file="labels.csv"):
        more = ["data.multi_label=true"] if file == "labels.csv" else []
        return load_recipe(
            "vit-digits", [*TINY, *more, "train.max_steps=12", *settings], address=f"csv:{coloured / file}"
        )

    return make


@pytest.fixture(scope="module")
def run(coloured, tmp_path_factory) -> Path:
    settings = [*TINY, "data.multi_label=true", "train.max_steps=60", "train.lr=3e-3", "train.warmup=0"]
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(load_recipe("vit-digits", settings, address=f"csv:{coloured / 'labels.csv'}"), folder)
    return folder


def test_a_run_learns_several_labels_and_keeps_their_thresholds(run, coloured):
    summary, metadata = Run(run).summary(), Run(run).metadata()
    assert summary["map"] > 0.95
    assert summary["f1"] > 0.85
    assert summary["best"].keys() == {"map", "step"}
    assert [row["name"] for row in summary["per_class"]] == sorted(LABELS)
    assert metadata["calibration"]["source"] == "measured"
    assert metadata["calibration"]["thresholds"].keys() == set(LABELS)
    assert 20 <= metadata["calibration"]["images"] <= 26, "a tenth of the 225 that are not held out"
    classifier = regard.load(run, device="cpu")
    assert classifier.multi_label
    pixels = np.zeros((8, 8, 3), np.uint8) + np.array([200, 60, 200], np.uint8)
    assert set(classifier(pixels).labels) == {"red", "blue"}
    found = regard.evaluate(run, device="cpu")
    assert found.metrics() == pytest.approx({name: summary[name] for name in found.metrics()}, abs=1e-6)
    assert [row.threshold for row in found.per_class()] == list(classifier.calibration.thresholds)


def test_thresholds_are_chosen_on_a_part_of_the_training_part(recipe):
    task = create_task(recipe())
    val = {task.data.val.name(index) for index in range(len(task.data.val))}
    trained = {task.train.name(index) for index in range(len(task.train))}
    held = {task.calibration_images.name(index) for index in range(len(task.calibration_images))}
    assert held.isdisjoint(val | trained)
    assert trained.isdisjoint(val)
    assert len(held | trained) == len(task.data.train)
    everything = create_task(recipe("evaluate.calibration=0"))
    assert len(everything.train) == len(task.data.train)
    assert everything.calibration_images is None
    with pytest.raises(RegardError, match=r"evaluate.calibration: is for images with several labels"):
        create_task(recipe("evaluate.calibration=0.2", file="one.csv"))


def test_the_report_shows_each_class_and_the_errors(run, tmp_path):
    write_report(tmp_path / "report.html", title="t", contenders=[contender("x", [run], with_cost=False)])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    summary = Run(run).summary()
    for words in ("Class by class", "mAP", "threshold", "got exactly their classes", f"{summary['map']:.3f}"):
        assert words in page
    for row in summary["per_class"]:
        assert f"<td>{row['name']}</td>" in page
        assert f"<td>{row['ap']:.3f}</td>" in page


def test_a_saved_model_and_an_explanation_know_it(run, coloured, tmp_path):
    regard.save(regard.load(run, device="cpu"), tmp_path / "saved")
    again = regard.load(tmp_path / "saved", device="cpu")
    assert again.calibration == regard.load(run, device="cpu").calibration
    regard.explain_image(run, coloured / "0.png", tmp_path / "x.png", device="cpu")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_neighbours_are_for_one_class(run):
    with pytest.raises(RegardError, match="--knn is for images that have one class each; these have several labels"):
        regard.evaluate_knn(run, device="cpu")


def test_it_is_measured_on_another_table(run, coloured, tmp_path):
    (tmp_path / "few.csv").write_text(
        f"file,label\n{coloured / '1.png'},red;blue\n{coloured / '2.png'},green\ngone,red\n"
    )
    with pytest.raises(RegardError, match="1 files are not there: gone"):
        regard.evaluate(run, f"csv:{tmp_path / 'few.csv'}", device="cpu")
    with pytest.warns(UserWarning, match="1 files are not there: gone"):
        found = regard.evaluate(
            run, f"csv:{tmp_path / 'few.csv'}", settings=["data.on_bad_annotation=skip"], device="cpu"
        )
    assert found.labels.tolist() == [[1, 0, 1], [0, 1, 0]]


def interrupted(recipe, folder: Path, monkeypatch, step: int = 8) -> None:
    """The training is killed at a step, and goes on."""
    from regard.training.metrics_log import MetricsLog

    write = MetricsLog.write

    def stop(self, kind, at, epoch, **figures):
        if at == step:
            raise KeyboardInterrupt
        write(self, kind, at, epoch, **figures)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, folder)
    train(Run(folder).recipe(), folder, resume=True)


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        ("labels.csv", ("data.sampling=balanced", "train.loss=focal", "augment.mixup=0.5", "augment.cutmix=1.0")),
        ("one.csv", ("data.sampling=balanced", "train.class_weights=balanced")),
    ],
)
def test_it_resumes_to_the_bit(recipe, tmp_path, monkeypatch, file, settings):
    wanted = recipe(*settings, "train.save_every_steps=3", file=file)
    whole = train(wanted, tmp_path / "never")
    interrupted(wanted, tmp_path / "killed", monkeypatch)
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("never", "killed"))
    assert all(torch.equal(tensor, b[key]) for key, tensor in a.items())
    summary = Run(tmp_path / "killed").summary()
    kept = ("per_class", "balanced_accuracy") if file == "one.csv" else ("per_class", "map")
    assert json.loads(json.dumps([whole[key] for key in kept])) == [summary[key] for key in kept]
    again = train(Run(tmp_path / "killed").recipe(), tmp_path / "killed", resume=True)
    assert [again[key] for key in kept] == [summary[key] for key in kept], "a run that has ended says it again"


def test_a_balanced_run_says_so_and_counts_alike(recipe, tmp_path):
    balanced = recipe("train.class_weights=balanced", "data.sampling=balanced", "train.loss=focal", file="one.csv")
    summary = train(balanced, tmp_path / "run")
    found = regard.evaluate(tmp_path / "run", device="cpu")
    assert summary["balanced_accuracy"] == pytest.approx(found.details()["balanced_accuracy"])
    assert {"map", "thresholds"}.isdisjoint(summary)
    text = (tmp_path / "run" / "recipe.toml").read_text()
    assert {'sampling = "balanced"', 'class_weights = "balanced"', 'loss = "focal"', "focal_gamma = 2.0"} <= set(
        text.splitlines()
    )
    write_report(tmp_path / "r.html", title="t", contenders=[contender("x", [tmp_path / "run"], with_cost=False)])
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "class weights in the loss, images of rare classes drawn more often, focal loss, γ = 2" in page
    assert f"{100 * summary['balanced_accuracy']:.1f}%" in page


FROZEN = ("model.freeze=backbone", "train.solve_head=true", "train.max_steps=1", "train.lr=1e-6")


@pytest.mark.parametrize("file", ["labels.csv", "one.csv"])
def test_a_solved_head_takes_several_labels_and_weights(recipe, tmp_path, file):
    found = {}
    for how in ("none", "balanced"):
        more = (f"features.folder={tmp_path / 'store'}", f"train.class_weights={how}")
        found[how] = train(recipe(*FROZEN, *more, file=file), tmp_path / how)
    metric = "map" if file == "labels.csv" else "balanced_accuracy"
    assert found["none"][metric] > (0.7 if file == "labels.csv" else 0.4)
    heads = [load_file(tmp_path / how / "model.safetensors")["head.bias"] for how in found]
    assert not torch.allclose(*heads, atol=0.05), "weights move the head"
    if file == "one.csv":
        assert found["balanced"]["balanced_accuracy"] > found["none"]["balanced_accuracy"] - 0.05
    evaluated = regard.evaluate(tmp_path / "none", device="cpu").metrics()
    assert evaluated == pytest.approx({name: found["none"][name] for name in evaluated}, abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            (*FROZEN, "train.loss=focal"),
            "train.loss: train.solve_head solves for all images at once; its loss is cross-",
        ),
        (
            (*FROZEN, "data.sampling=balanced"),
            "data.sampling: train.solve_head solves .* train.class_weights = balanced",
        ),
        (("train.focal_gamma=3",), "train.focal_gamma is for train.loss = focal; it is cross_entropy"),
        (("train.class_weights=some",), "train.class_weights: input should be 'none' or 'balanced'"),
        (("train.loss=hinge",), "train.loss: input should be 'cross_entropy' or 'focal'"),
        (("evaluate.calibration=0.7",), "evaluate.calibration: input should be less than or equal to 0.5"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(recipe, settings, said):
    with pytest.raises(RegardError, match=said):
        recipe(*settings)


def test_the_whole_set_is_used_where_it_is_small(coloured, tmp_path):
    rows = (coloured / "labels.csv").read_text().splitlines()[:40]
    (coloured / "small.csv").write_text("\n".join(rows))
    settings = [*TINY, "data.multi_label=true", "train.max_steps=2"]
    train(load_recipe("vit-digits", settings, address=f"csv:{coloured / 'small.csv'}"), tmp_path / "run")
    calibration = Run(tmp_path / "run").metadata()["calibration"]
    assert calibration["source"] == "default"
    assert set(calibration["thresholds"].values()) == {0.5}


def test_a_run_goes_on_where_its_table_was_moved(coloured, recipe, tmp_path):
    shutil.copytree(coloured, tmp_path / "moved")
    train(recipe(), tmp_path / "run")
    address = f"csv:{tmp_path / 'moved' / 'labels.csv'}"
    again = resumed_recipe(Run(tmp_path / "run"), ["train.max_steps=14"], address)
    assert train(again, tmp_path / "run", resume=True)["steps"] == 14
    rows = (tmp_path / "moved" / "labels.csv").read_text().replace("7.png,", "7.png,red;blue;", 1)
    (tmp_path / "moved" / "labels.csv").write_text(rows)
    with pytest.raises(RegardError, match=r"1 with other labels \(7.png\)"):
        train(resumed_recipe(Run(tmp_path / "run"), ["train.max_steps=16"]), tmp_path / "run", resume=True)
