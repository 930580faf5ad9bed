"""A run is resumed with its own recipe and data, and measured on what it held out."""

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from regard import evaluate
from regard.data import differences, fingerprint, open_detection, open_images, open_pairs, open_text
from regard.errors import RegardError
from regard.training import Bar, Run, origin_of, resumed_recipe, train

QUIET = ("train.epochs=none", "train.max_minutes=none", "train.batch_size=8", "data.mean=[0.5]", "data.std=[0.5]")


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Three classes with eight pictures each."""
    for label, name in enumerate("abc"):
        for number in range(8):
            file = tmp_path / "pictures" / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            image = Image.new("L", (8, 8), 60 * label)
            image.putpixel((number, 0), 200)
            image.save(file)
    return tmp_path / "pictures"


@pytest.fixture
def half(recipe, pictures, tmp_path) -> Path:
    """A run on them with a state of step 2, as if it had been killed there."""
    settings = (f"data.address=folder:{pictures}", "train.max_steps=2", *QUIET)
    train(recipe(*settings), tmp_path / "run")
    return tmp_path / "run"


def resume(run: Path, *settings: str, address: str | None = None) -> dict:
    return train(resumed_recipe(Run.open(run), settings, address), run, resume=True, bar=Bar(visible=False))


def refused(run: Path, *settings: str, address: str | None = None) -> str:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(RegardError) as caught:
        resume(run, *settings, address=address)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(run: Path, old: str, new: str) -> None:
    text = (run / "recipe.toml").read_text(encoding="utf-8")
    assert old in text
    (run / "recipe.toml").write_text(text.replace(old, new), encoding="utf-8")


def test_a_class_that_is_called_otherwise_now(half, pictures):
    (pictures / "a").rename(pictures / "z")
    told = refused(half, "train.max_steps=4")
    assert "classes: 1 no more (a); 1 new (z)" in told
    assert "training part 18 -> 18, held-out part 6 -> 6: 8 no more (a/" in told
    assert "; 8 new (z/" in told
    assert "other labels" not in told


def test_an_image_in_another_class_now(half, pictures):
    name = next(name for name in origin_of(Run(half)).data.train.labels if name.startswith("a/"))
    (pictures / name).rename(pictures / "b" / "moved.png")
    told = refused(half, "train.max_steps=4")
    assert name in told
    assert "b/moved.png" in told


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("lr = 0.002", "lr = 0.02", "train.lr 0.002 -> 0.02"),
        ("\nseed = 0", "\nseed = 3", "seed 0 -> 3"),
        ("batch_size = 8", "batch_size = 6", "train.batch_size 8 -> 6"),
        ("split_seed = 0", "split_seed = 1", "data.split_seed 0 -> 1"),
        ("embed_dim = 16", "embed_dim = 32", "model.embed_dim 16 -> 32"),
        ("max_steps = 2", "max_steps = 5", "train.max_steps 2 -> 5; put it back, and change it by --set train.max_s"),
    ],
)
def test_a_recipe_that_was_edited(half, old, new, told):
    text = (half / "recipe.toml").read_text(encoding="utf-8")
    if old.startswith("lr"):
        old = next(line for line in text.splitlines() if line.startswith("lr = "))
        told = f"train.lr {old.removeprefix('lr = ')} -> 0.02"
    edit(half, old, new)
    assert told in refused(half)


def test_a_longer_budget_is_set_and_kept(half):
    assert resume(half, "train.max_steps=4", "train.evaluate_every=7")["steps"] == 4
    assert Run(half).recipe().train.max_steps == 4
    assert Run(half).recipe().train.evaluate_every == 7
    assert resume(half)["steps"] == 4
    assert origin_of(Run(half)).recipe.train.max_steps == 4


def test_what_would_have_changed_the_training_is_not_set(half):
    for setting in ("train.lr=0.1", "seed=4", "model.depth=2", "data.val_fraction=0.5", "augment.flip=true"):
        assert f"--set {setting.partition('=')[0]}: the training so far" in refused(half, setting)


def test_a_budget_that_is_taken_out(half):
    assert resume(half, "train.max_steps=none", "train.epochs=2")["steps"] == 4
    assert Run(half).recipe().train.max_steps is None


def test_data_that_were_moved(half, pictures, tmp_path):
    shutil.move(pictures, tmp_path / "moved")
    with pytest.raises(RegardError, match="no such folder"):
        resume(half, "train.max_steps=4")
    assert resume(half, "train.max_steps=4", address=f"folder:{tmp_path / 'moved'}")["steps"] == 4
    assert Run(half).recipe().data.address == f"folder:{tmp_path / 'moved'}"
    assert len(evaluate(half, device="cpu").labels) == 6


def test_other_data_under_the_new_address(half, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "other")
    (tmp_path / "other" / "c" / "7.png").unlink()
    assert ": 1 no more (c/7.png); bring" in refused(half, "train.max_steps=4", address=f"folder:{tmp_path / 'other'}")


def test_a_state_of_an_older_version_is_resumed_with_a_word(half, capsys):
    state = half / "state" / "step-2"
    (state / "origin.json").unlink()
    train(resumed_recipe(Run.open(half), ["train.max_steps=3"]), half, resume=True)
    said = capsys.readouterr().err
    assert said.count("older version") == 1


def test_what_was_held_out_is_measured(half, pictures, caplog):
    whole = evaluate(half, device="cpu")
    kept = list(origin_of(Run(half)).data.val.labels)
    assert len(whole.labels) == len(kept) == 6
    assert not caplog.records
    for number in range(10):  # by itself the split would now be another one
        Image.new("L", (8, 8), number).save(pictures / "b" / f"new-{number}.png")
    again = evaluate(half, device="cpu")
    assert again.metrics() == whole.metrics()
    (told,) = [record.getMessage() for record in caplog.records]
    assert "10 are new, and not measured (b/new-" in told
    caplog.clear()
    (pictures / kept[0]).unlink()
    assert len(evaluate(half, device="cpu").labels) == 5
    assert f"1 of the 6 are gone ({kept[0]})" in caplog.records[0].getMessage()


def test_a_run_without_its_states_says_what_cannot_be_told(half, pictures, caplog):
    shutil.rmtree(half / "state")
    assert len(evaluate(half, device="cpu").labels) == 6
    assert not caplog.records  # the digest of the held-out part is the same
    Image.new("L", (8, 8)).save(pictures / "b" / "new.png")
    evaluate(half, device="cpu")
    assert [record.getMessage().count("cannot be told which samples") for record in caplog.records] == [1]


def test_names_are_relative_to_the_address(pictures, tmp_path):
    found = fingerprint(open_images(f"folder:{pictures}", channels=1))
    assert {"a/0.png", "c/7.png"} <= {*found.train.labels, *found.val.labels}
    shutil.copytree(pictures, tmp_path / "copy")
    assert fingerprint(open_images(f"folder:{tmp_path / 'copy'}", channels=1)) == found
    assert differences(found, found) == []


def test_fingerprints_of_boxes_and_texts(tmp_path):
    scenes = fingerprint(open_detection("digit-scenes"))
    assert (scenes.train.samples, scenes.val.samples) == (1500, 300)
    assert len(set(scenes.train.labels.values())) == 1500
    (tmp_path / "a.tsv").write_text("".join(f"s{i}\tt{i}\n" for i in range(20)), encoding="utf-8")
    pairs = fingerprint(open_pairs(f"pairs:{tmp_path / 'a.tsv'}"))
    (tmp_path / "a.tsv").write_text("".join(f"s{i}\tt{i + (i == 3)}\n" for i in range(20)), encoding="utf-8")
    (told,) = differences(pairs, fingerprint(open_pairs(f"pairs:{tmp_path / 'a.tsv'}")))
    assert ": 1 with other labels (:4)" in told
    (tmp_path / "a.txt").write_text("words " * 100, encoding="utf-8")
    text = fingerprint(open_text(f"text:{tmp_path / 'a.txt'}"))
    (tmp_path / "a.txt").write_text("Words " + "words " * 99, encoding="utf-8")
    (told,) = differences(text, fingerprint(open_text(f"text:{tmp_path / 'a.txt'}")))
    assert told == "training part: 540 -> 540 samples, other content"


@pytest.mark.skipif(os.name == "nt", reason="names are not bytes there")
def test_names_that_are_not_utf8(recipe, tmp_path):
    """A class, an image that is cut short, and the folder of the data."""
    data = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xe9"))
    for label, name in enumerate((b"caf\xe9", b"tea")):
        for number in range(12):
            file = Path(os.fsdecode(os.fsencode(data) + b"/" + name + b"/\xff%d.png" % number))
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((40, 40), 100 + 60 * label).save(file)
    cut = sorted(data.rglob("*.png"))[3]
    cut.write_bytes(cut.read_bytes()[:200])
    settings = (f"data.address=folder:{data}", "data.on_bad_image=skip", "train.max_steps=6", *QUIET)
    summary = train(recipe(*settings, "train.save_every_steps=2"), tmp_path / "run")
    assert summary["skipped_images"] == 1
    run = Run(tmp_path / "run")
    assert run.recipe().data.address == f"folder:{data}"
    assert os.fsencode(run.metadata()["class_names"][0]) == b"caf\xe9"
    assert resume(tmp_path / "run", "train.max_steps=9")["skipped_images"] == 1
    assert len(evaluate(tmp_path / "run", device="cpu").labels) in (5, 6)
