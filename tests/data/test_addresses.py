"""Data addresses, and what `import regard.data` costs."""

import subprocess
import sys

import pytest

import regard.data
from regard.data import KINDS, SORTS, Address, open_detection, open_images, open_pairs, open_text, parse_address
from regard.errors import RegardError


@pytest.mark.parametrize(
    ("text", "kind", "location"),
    [
        ("digits", "digits", ""),
        ("folder:some/where", "folder", "some/where"),
        ("folder:C:/pictures", "folder", "C:/pictures"),
        ("torchvision:CIFAR10", "torchvision", "CIFAR10"),
        ("digit-scenes", "digit-scenes", ""),
        ("coco:my/boxes", "coco", "my/boxes"),
        ("yolo:my/boxes", "yolo", "my/boxes"),
        ("voc:VOC2012", "voc", "VOC2012"),
        ("numbers", "numbers", ""),
        ("pairs:my/pairs.tsv", "pairs", "my/pairs.tsv"),
        ("pydoc", "pydoc", ""),
        ("text:book.txt", "text", "book.txt"),
    ],
)
def test_addresses_are_read_and_written_back(text, kind, location):
    address = parse_address(text)
    assert address == Address(kind, location)
    assert str(address) == text
    assert kind in KINDS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("digit", "did you mean 'digits'"),
        ("", "unknown kind of data ''"),
        ("folder", "needs a PATH"),
        ("folder:", "needs a PATH"),
        ("torchvision", "needs a NAME"),
        ("digits:8", "takes nothing"),
        ("digit-scenes:8", "takes nothing"),
        ("coco", "needs a PATH; write 'coco:PATH'"),
        ("yolo:", "needs a PATH"),
        ("voc", "needs a PATH"),
        ("cocoo:x", "did you mean 'coco'"),
        ("numbers:8", "takes nothing"),
        ("number", "did you mean 'numbers'"),
        ("pairs", "needs a PATH; write 'pairs:PATH'"),
        ("text:", "needs a PATH"),
    ],
)
def test_a_bad_address_says_what_is_allowed(text, said):
    with pytest.raises(RegardError, match=said) as caught:
        parse_address(text)
    assert "\n" not in str(caught.value)


def test_a_bare_path_is_offered_as_a_folder(tmp_path):
    with pytest.raises(RegardError, match="did you mean") as caught:
        parse_address(str(tmp_path))
    assert f"'folder:{tmp_path}'" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("annotations/boxes.json", "coco"), ("data.yaml", "yolo"), ("JPEGImages/1.jpg", "voc"), ("cat/1.jpg", "folder")],
)
def test_a_bare_folder_is_offered_as_what_it_may_be(tmp_path, name, kind):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(RegardError, match="did you mean") as caught:
        parse_address(str(tmp_path))
    assert f"'{kind}:{tmp_path}'" in str(caught.value)


@pytest.mark.parametrize(("name", "kind"), [("a.tsv", "pairs"), ("a.txt", "text"), ("a", "text")])
def test_a_bare_file_is_offered_as_what_it_may_be(tmp_path, name, kind):
    (tmp_path / name).touch()
    with pytest.raises(RegardError, match="did you mean") as caught:
        parse_address(str(tmp_path / name))
    assert f"'{kind}:{tmp_path / name}'" in str(caught.value)


def test_every_kind_is_of_one_sort():
    assert sorted(kind for kinds in SORTS.values() for kind in kinds) == sorted(KINDS)


@pytest.mark.parametrize(
    ("opened", "address", "said"),
    [
        (
            lambda address: open_images(address, channels=1),
            "numbers",
            "gives pairs of texts; images can come from: digi",
        ),
        (lambda address: open_images(address, channels=1), "text:x", "folder:PATH, torchvision:NAME$"),
        (open_pairs, "digits", "'digits' gives images; pairs of texts can come from: numbers, pairs:PATH$"),
        (open_pairs, "pydoc", "'pydoc' gives text; pairs of texts can come from: numbers, pairs:PATH$"),
        (open_text, "pairs:x", "'pairs:x' gives pairs of texts; text can come from: pydoc, text:PATH$"),
        (open_text, "nmbers", "did you mean 'numbers'"),
        (
            open_detection,
            "digits",
            "gives images; images with boxes can come from: digit-scenes, coco:PATH, yolo:PATH, voc:PATH$",
        ),
        (lambda address: open_images(address, channels=1), "coco:x", "'coco:x' gives images with boxes; images can"),
    ],
)
def test_an_address_of_another_sort_says_which_kinds_are_taken(opened, address, said):
    with pytest.raises(RegardError, match=said) as caught:
        opened(address)
    assert "\n" not in str(caught.value)


def test_every_offered_name_exists_and_is_declared():
    assert {"open_images", "Batch", "KINDS", "check_images", "open_detection", "check_detection"} <= set(
        dir(regard.data)
    )
    for name in dir(regard.data):
        assert getattr(regard.data, name) is not None
    with pytest.raises(AttributeError, match="open_image"):
        regard.data.open_image  # noqa: B018


def test_parsing_an_address_does_not_import_torch():
    code = "import sys, regard.data; regard.data.parse_address('digits'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
