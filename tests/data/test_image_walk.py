"""The one walker: which files of a folder are images, and what is said of the others."""

import os
from collections import Counter
from pathlib import Path

import pytest

import regard.data.images.walk as walk
from regard.data import BadImage, image_endings, image_files, passed_over_line, read_image
from regard.errors import RegardError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in image_files(folder)[0]]


def test_images_are_found_at_any_depth_sorted_by_their_parts(tmp_path):
    names = ["b.png", "a-b/c.JPG", "a/z.jfif", "a/deeper/still/x.jpe", "a/y.dib", "a/w.webp"]
    touch(*(tmp_path / name for name in names))
    assert found(tmp_path) == [
        *("a/deeper/still/x.jpe", "a/w.webp", "a/y.dib", "a/z.jfif", "a-b/c.JPG", "b.png"),
    ]


def test_what_systems_and_tools_leave_is_no_part_of_the_data(tmp_path):
    touch(tmp_path / "a.png", tmp_path / "._a.png", tmp_path / ".hidden.png", tmp_path / ".DS_Store")
    touch(tmp_path / "__MACOSX" / "a.png", tmp_path / ".ipynb_checkpoints" / "a-checkpoint.png")
    touch(tmp_path / "Thumbs.db", tmp_path / "desktop.ini", tmp_path / "@eaDir" / "a.png")
    assert image_files(tmp_path) == ([tmp_path / "a.png"], Counter())


def test_other_files_are_counted_by_their_endings(tmp_path, monkeypatch):
    monkeypatch.setattr(walk, "find_spec", lambda name: None)
    touch(*(tmp_path / "heic" / f"{i}.HEIC" for i in range(20)), *(tmp_path / f"{i}.txt" for i in range(15)))
    touch(tmp_path / "README", tmp_path / "2026.11.28 at the sea", tmp_path / os.fsdecode(b"x.\xff\xfe"))
    images, passed_over = image_files(tmp_path)
    assert images == []
    assert passed_over_line(passed_over) == (
        "38 files were passed over: 20 .heic (pip install pillow-heif), 15 .txt, 2 of other endings, "
        "1 without an ending"
    )
    assert passed_over_line(Counter({".xml": 1})) == "1 file was passed over: 1 .xml"
    assert passed_over_line(Counter()) == ""


def test_heif_is_read_where_pillow_heif_is_installed(monkeypatch):
    monkeypatch.setattr(walk, "find_spec", lambda name: None)
    assert not {".heic", ".heif"} & image_endings()
    monkeypatch.setattr(walk, "find_spec", lambda name: object())
    assert {".heic", ".heif", ".png"} <= image_endings()


def test_a_photograph_of_a_telephone_names_the_extra_that_reads_it(monkeypatch, tmp_path):
    monkeypatch.setattr(walk, "find_spec", lambda name: None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    with pytest.raises(
        BadImage, match=r"a\.heic: photographs of telephones are read with pip install 'regard\[heif\]'$"
    ):
        read_image(tmp_path / "a.heic", 3)


def test_links_are_followed_and_never_in_circles(tmp_path):
    touch(tmp_path / "set" / "a" / "x.png", tmp_path / "elsewhere" / "y.png")
    (tmp_path / "set" / "a" / "again").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "0-to-a").symlink_to(tmp_path / "set" / "a")
    (tmp_path / "set" / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "file.png").symlink_to(tmp_path / "elsewhere" / "y.png")
    (tmp_path / "set" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "set" / "self.png").symlink_to("self.png")
    assert found(tmp_path / "set") == ["a/x.png", "file.png", "out/y.png"]
    line = passed_over_line(image_files(tmp_path / "set")[1])
    assert line == "2 files were passed over: 2 .png (links that lead nowhere)"


def test_pipes_are_no_images(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    images, passed_over = image_files(tmp_path)
    assert images == []
    assert passed_over_line(passed_over) == "1 file was passed over: 1 .png (no regular files)"


def test_a_folder_that_cannot_be_read_is_not_left_out_in_silence(tmp_path, monkeypatch):
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(walk.os, "scandir", refuse)
    with pytest.raises(RegardError, match=r"the folder cannot be read: Permission denied"):
        image_files(tmp_path)
