"""`data.per_class`: so many training images of each class, drawn by a seed of their own."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from regard.data import (
    CsvOptions,
    InMemoryImages,
    draw_per_class,
    fewer_than,
    fingerprint,
    measure_mean_std,
    open_images,
)
from regard.errors import RegardError
from regard.recipes import load_recipe
from regard.tasks import create_task, quick_facts
from regard.training import Run, train
from regard.training.origin import resumed_recipe

TINY = (
    *("model.depth=1", "model.embed_dim=16", "model.num_heads=2", "train.batch_size=8", "train.device=cpu"),
    *("train.epochs=none", "train.max_steps=6", "train.save_every_steps=2", "data.per_class=3"),
)


def source(*labels: int) -> InMemoryImages:
    return InMemoryImages(torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None], labels, "image")


def names(images) -> list[str]:
    return [images.name(index) for index in range(len(images))]


def task_of(*settings: str):
    return create_task(load_recipe("vit-digits", ["model.depth=1", *settings]))


def test_so_many_of_each_class_in_their_order():
    images = source(*[0, 1, 2, 1, 0] * 8)
    drawn = draw_per_class(images, 5, 0, "x")
    assert Counter(drawn.labels) == {0: 5, 1: 5, 2: 5}
    assert names(drawn) == sorted(names(drawn), key=names(images).index)
    for index, name in enumerate(names(drawn)):
        place = names(images).index(name)
        assert drawn.labels[index] == images.labels[place]
        assert drawn.read(index).equal(images.read(place))


def test_a_seed_draws_the_same_and_another_draws_others():
    images = source(*[0, 1] * 20)
    draws = [names(draw_per_class(images, 4, seed, "x")) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert set(draws[0]) < set(names(draw_per_class(images, 7, 0, "x")))


def test_the_draw_of_a_class_does_not_depend_on_others():
    drawn = [draw_per_class(source(*labels), 3, 0, "x") for labels in ([0, 1, 2] * 10, [0, 3, 4] * 10)]
    of_class_0 = [[name for name, label in zip(names(one), one.labels, strict=True) if label == 0] for one in drawn]
    assert of_class_0[0] == of_class_0[1]


def test_every_image_is_as_likely_as_the_others():
    images, met = source(*[0] * 10), Counter()
    for seed in range(400):
        met.update(names(draw_per_class(images, 3, seed, "x")))
    assert len(met) == 10
    assert all(80 <= count <= 160 for count in met.values()), met  # 120 are expected, and 9 are a standard deviation


def test_a_class_with_fewer_keeps_all_and_is_named():
    images = source(*[0] * 5, *[1] * 2, 2)
    drawn = draw_per_class(images, 4, 0, "x")
    assert Counter(drawn.labels) == {0: 4, 1: 2, 2: 1}
    said = fewer_than(4, drawn, ("cat", "dog", "owl"))
    assert said == "fewer than 4 training images of dog (2), owl (1); all of them are taken"
    assert fewer_than(1, drawn, ("cat", "dog", "owl")) == ""
    assert draw_per_class(images, 9, 0, "x") is images


def test_several_labels_are_an_error(tmp_path: Path):
    from PIL import Image

    lines = ["file,label"]
    for index in range(8):
        Image.new("RGB", (8, 8), (index * 30, 0, 0)).save(tmp_path / f"{index}.png")
        lines.append(f"{index}.png,{'a;b' if index % 2 else 'a'}")
    (tmp_path / "files.csv").write_text("\n".join(lines), encoding="utf-8")
    images = open_images(f"csv:{tmp_path / 'files.csv'}", channels=3, csv=CsvOptions())
    with pytest.raises(RegardError, match="x: is for images with one class each; these have several labels"):
        draw_per_class(images.train, 2, 0, "x")
    with pytest.raises(RegardError, match=r"files\.csv: data\.per_class: is for images with one class each"):
        create_task(load_recipe("small-images", ["data.per_class=2"], address=f"csv:{tmp_path / 'files.csv'}"))


# In a recipe.


def test_a_recipe_without_it_reads_as_before():
    recipe = load_recipe("vit-digits", [])
    assert "per_class" not in str(recipe.to_dict())
    written = load_recipe("vit-digits", ["data.per_class=3", "data.per_class_seed=2"]).to_dict()["data"]
    assert (written["per_class"], written["per_class_seed"]) == (3, 2)
    with pytest.raises(RegardError, match=r"per_class_seed is about data\.per_class, which is not given"):
        load_recipe("vit-digits", ["data.per_class_seed=2"])
    with pytest.raises(RegardError, match="per_class"):
        load_recipe("vit-digits", ["data.per_class=0"])


def test_the_task_trains_on_these_and_holds_out_what_it_did():
    plain, few, others = task_of(), task_of("data.per_class=3"), task_of("data.per_class=3", "data.per_class_seed=1")
    assert Counter(few.train.labels) == dict.fromkeys(range(10), 3)
    assert names(few.data.val) == names(plain.data.val) == names(others.data.val)
    assert names(few.train) != names(others.train)
    assert set(names(few.train)) < set(names(plain.train))
    assert few.preprocessing.mean == measure_mean_std(few.train)[0] != plain.preprocessing.mean
    assert fingerprint(few.data) == fingerprint(plain.data)
    assert quick_facts(few.data, few.recipe).counts.startswith("30 images to train on, 450 held out")


def test_what_is_held_out_to_decide_on_comes_out_of_these():
    task = task_of("data.per_class=10", "data.selection=0.2")
    both = [*task.train.labels, *task.selection_images.labels]
    assert Counter(both) == dict.fromkeys(range(10), 10)
    assert Counter(task.selection_images.labels) == dict.fromkeys(range(10), 2)


def test_one_warning_names_classes_with_fewer():
    task = task_of("data.per_class=134")
    said = [issue.what for issue in task.check() if issue.where == "data.per_class"]
    counts = Counter(task.data.train.labels)
    few = [f"{label} ({count})" for label, count in sorted(counts.items()) if count < 134]
    assert few
    assert said == [f"fewer than 134 training images of {', '.join(few)}; all of them are taken"]
    assert [issue for issue in task_of("data.per_class=3").check() if issue.where == "data.per_class"] == []


def test_a_run_that_was_broken_off_goes_on_to_the_bit(tmp_path, monkeypatch):
    from regard.training.metrics_log import MetricsLog

    class Stop(Exception):  # noqa: N818 - it is no error
        pass

    recipe, write = load_recipe("vit-digits", TINY), MetricsLog.write

    def stop(self, kind, at, epoch, **figures):
        if at == 5:
            raise Stop
        write(self, kind, at, epoch, **figures)

    train(recipe, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "write", stop)
        with pytest.raises(Stop):
            train(recipe, tmp_path / "cut")
    for setting in ("data.per_class=4", "data.per_class_seed=1"):
        with pytest.raises(RegardError, match=f"--set {setting.partition('=')[0]}: the training so far"):
            resumed_recipe(Run(tmp_path / "cut"), [setting])
    file = tmp_path / "cut" / "recipe.toml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("per_class = 3", "per_class = 5"), encoding="utf-8")
    with pytest.raises(RegardError, match=r"by another recipe so far \(then -> now\): data\.per_class 3 -> 5"):
        resumed_recipe(Run(tmp_path / "cut"))
    file.write_text(text, encoding="utf-8")
    train(resumed_recipe(Run(tmp_path / "cut")), tmp_path / "cut", resume=True)
    wanted, found = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
