"""The checks of data find what would spoil a training, and say nothing about sound data."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from regard.data import Issue, check_data, check_images, check_opened_images, check_pairs, check_text, open_images


def save(path: Path, number: int, height: int = 20, width: int = 24) -> None:
    """A crop of a photograph, another one for every number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    photo = Image.fromarray(load_sample_image("china.jpg"))
    photo.crop((5 * number, 90, 5 * number + width, 90 + height)).save(path)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Two classes, twelve images each to train on and three to validate on."""
    number = 0
    for part, count in (("train", 12), ("val", 3)):
        for name in ("hill", "roof"):
            for i in range(count):
                save(tmp_path / part / name / f"{i:02}.png", number)
                number += 1
    return tmp_path


def issues(path: Path) -> list[Issue]:
    found, _ = check_images(f"folder:{path}")
    return found


def test_sound_data_has_no_findings(sound):
    found, summary = check_images(f"folder:{sound}")
    assert found == []
    assert (summary.num_train, summary.num_val) == (24, 6)
    assert summary.class_counts == {"hill": 15, "roof": 15}
    assert summary.sizes == {(20, 24): 30}


def test_digits_are_sound():
    found, summary = check_images("digits", channels=1)
    assert found == []
    assert summary.num_train + summary.num_val == 1797


def test_images_that_cannot_be_decoded_are_errors(sound):
    (sound / "train/hill/03.png").write_text("no image")
    whole = (sound / "val/roof/01.png").read_bytes()
    (sound / "val/roof/01.png").write_bytes(whole[:-200])
    found, summary = check_images(f"folder:{sound}")
    assert [(issue.severity, issue.where) for issue in found] == [
        ("error", str(sound / "train/hill/03.png")),
        ("error", str(sound / "val/roof/01.png")),
    ]
    assert "not an image" in found[0].what
    assert "truncated" in found[1].what
    assert (summary.num_train, summary.num_val) == (23, 5)


def test_the_same_image_twice_in_one_part_and_in_both_is_a_warning(sound):
    save(sound / "val/roof/copy.png", 2)
    save(sound / "train/hill/copy.png", 3)
    save(sound / "train/roof/copy.png", 4)
    within, between_classes, leak = issues(sound)
    assert (within.severity, within.where) == ("warning", str(sound / "train/hill/copy.png"))
    assert "same pixels as" in within.what
    assert str(sound / "train/hill/03.png") in within.what
    assert (between_classes.severity, between_classes.where) == ("warning", str(sound / "train/roof/copy.png"))
    assert "another class" in between_classes.what
    assert (leak.severity, leak.where) == ("warning", str(sound / "val/roof/copy.png"))
    assert str(sound / "train/hill/02.png") in leak.what
    assert leak.what.endswith("; data.strict=true makes this an error")
    (leak,) = [issue for issue in strict_issues(sound) if issue.severity == "error"]
    assert leak.what.endswith("; data.strict=false lets it pass")


def test_the_same_image_twice_among_those_held_out(sound):
    for number in range(2):
        (sound / f"val/hill/copy{number}.png").write_bytes((sound / "val/roof/00.png").read_bytes())
    (sound / "val/roof/copy.png").write_bytes((sound / "val/roof/01.png").read_bytes())
    within, between_classes = issues(sound)
    assert within.what.startswith("2 images in val have the same pixels as another, for instance ")
    assert between_classes.where == str(sound / "val/roof/00.png")
    assert between_classes.what.startswith("same pixels and another class as ")
    assert between_classes.what.endswith(", also in val")


def strict_issues(path: Path) -> list[Issue]:
    found, _ = check_opened_images(open_images(f"folder:{path}", channels=3), strict=True)
    return found


def test_faults_of_one_kind_are_one_issue(sound):
    for number in range(98):
        save(sound / f"train/hill/copy-{number:02}.png", number % 12)
        save(sound / f"val/roof/copy-{number:02}.png", number % 12)
    for number in range(7):
        (sound / f"train/roof/x{number}.png").write_text("no image")
        (sound / f"train/roof/y{number}.jpg").touch()
    bad, empty, within, leak = issues(sound)
    assert within.what.startswith("98 images in train have the same pixels as another, for instance ")
    assert leak.what.startswith("98 of 104 held-out images are trained on too: ")
    assert leak.what.count(" is ") == 3
    assert bad.what.startswith("7 images: not an image")
    assert empty.what == "7 images: the file is empty; --set data.on_bad_image=skip leaves such images out"
    assert empty.where.endswith("y2.jpg and 4 more")


@pytest.mark.parametrize(("left", "severity"), [(1, "error"), (9, "warning")])
def test_a_class_with_few_images_is_found(sound, left, severity):
    for path in sorted((sound / "train/hill").iterdir())[left:]:
        path.unlink()
    first, *rest = issues(sound)
    assert (first.severity, first.where) == (severity, "class hill")
    assert f"only {left} " in first.what
    assert len(rest) == (left == 1)  # 12 against 1 is an imbalance too
    assert all("class roof has 12" in issue.what for issue in rest)


def test_odd_images_are_found(sound):
    save(sound / "train/hill/small.png", 70, height=4, width=5)
    save(sound / "val/hill/long.png", 71, height=20, width=161)
    deep = np.random.default_rng(0).integers(0, 65536, (20, 24)).astype(np.uint16)
    Image.fromarray(deep).save(sound / "train/roof/deep.png")
    small, long, mixed = issues(sound)
    assert {issue.severity for issue in (small, long, mixed)} == {"warning"}
    assert small.where == str(sound / "train/hill/small.png")
    assert small.what == "1 images, this one first: shorter side below a quarter of the usual 20 pixels"
    assert long.where == str(sound / "val/hill/long.png")
    assert mixed.where == str(sound / "train/roof/deep.png")


def test_what_cannot_be_opened_is_one_error(tmp_path):
    found, summary = check_images(f"folder:{tmp_path / 'none'}")
    assert [issue.severity for issue in found] == ["error"]
    assert "no such folder" in found[0].what
    assert summary.num_train == 0


def test_the_check_of_an_address_is_that_of_its_sort(sound):
    assert check_data(f"folder:{sound}") == check_images(f"folder:{sound}")
    assert check_data("pydoc") == check_text("pydoc")
    assert str(check_images(f"folder:{sound}")[1]) == "24 images to train on, 6 held out, 2 classes"
    found, summary = check_data("numbers")
    assert found == []
    assert str(summary) == "630730 pairs to train on, 50000 held out, of 5 groups (en, nl, fr, de, es)"
    (issue,), summary = check_data("nmbers")
    assert (issue.severity, issue.where) == ("error", "nmbers")
    assert "did you mean 'numbers'" in issue.what
    assert summary.num_train == 0


def test_pydoc_is_sound():
    found, summary = check_text("pydoc")
    assert found == []
    assert 0.099 < summary.num_val / (summary.num_train + summary.num_val) < 0.101
    assert str(summary) == f"{summary.num_train} characters to train on, {summary.num_val} held out"


def test_sound_pairs_have_no_findings(tmp_path):
    (tmp_path / "a.tsv").write_text("a\t1\nb\t1\nc\t3\nc\t3\n")
    found, summary = check_pairs(f"pairs:{tmp_path / 'a.tsv'}", val_fraction=0.5)
    assert found == []
    assert summary.num_train + summary.num_val == 4
    assert str(summary) == f"{summary.num_train} pairs to train on, {summary.num_val} held out"


def test_odd_pairs_are_found(tmp_path):
    train, val = tmp_path / "train.tsv", tmp_path / "val.tsv"
    train.write_bytes(b"a\t1\nb\t2\nno tab\na\t3\na\t1\nb\t4\n")
    val.write_bytes(b"c\t1\nb\t4\na\t9\nd\t\xff\nb\t2\n")
    found, summary = check_data(f"pairs:{tmp_path}")
    tab, bytes_, targets, both = found
    assert [issue.severity for issue in found] == ["error", "error", "warning", "warning"]
    way_on = "--set data.on_bad_line=skip leaves such lines out"
    assert (tab.what, tab.where) == (f"no tab, where one tab separates source and target; {way_on}", f"{train}:3")
    assert (bytes_.what, bytes_.where) == (f"is not UTF-8: byte 14 of the file; {way_on}", f"{val}:4")
    found, _ = check_pairs(f"pairs:{tmp_path}", on_bad_line="skip")
    assert [issue.severity for issue in found] == ["warning"] * 4
    assert targets.what == f"2 pairs, this one first: the same source as {train}:1, with another target"
    assert targets.where == f"{train}:4"
    assert both.what == f"2 pairs, this one first: held out, and the same as {train}:6, which is trained on"
    assert both.where == f"{val}:2"
    assert (summary.num_train, summary.num_val) == (5, 4)


def test_held_out_paragraphs_that_are_trained_on_are_found(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("A first one.\n\nAnother one.\n\nA third one.\n\n  Another\n  one.\n\nThe last.")
    (issue,), _ = check_text(f"text:{file}", val_fraction=0.5)
    assert (issue.severity, issue.where) == ("warning", f"text:{file}")
    assert issue.what.endswith("held-out paragraphs are also trained on, this one first: Another one.")
    assert issue.what.startswith("1 of ")


@pytest.mark.parametrize("sort", ["pairs", "text"])
def test_pairs_and_text_that_cannot_be_opened_are_one_error(tmp_path, sort):
    (issue,), summary = check_data(f"{sort}:{tmp_path / 'none'}")
    assert (issue.severity, issue.where) == ("error", f"{sort}:{tmp_path / 'none'}")
    assert "no such file or folder" in issue.what
    assert (summary.num_train, summary.num_val) == (0, 0)


def test_lines_with_the_same_fault_are_one_issue(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b"a\t1\nb\t2\n" + b"no tab\n" * 4 + b"x\t\xff\n" * 2)
    tabs, bytes_ = check_pairs(f"pairs:{tmp_path / 'a.tsv'}", val_fraction=0.5)[0]
    assert tabs.what.startswith("4 lines: no tab, where one tab separates source and target")
    assert tabs.where == f"{tmp_path}/a.tsv:3, {tmp_path}/a.tsv:4, {tmp_path}/a.tsv:5 and 1 more"
    assert bytes_.what.startswith("2 lines: is not UTF-8: byte 38 of the file")
