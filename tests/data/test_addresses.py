"""Data addresses, and what `import regard.data` costs."""

import subprocess
import sys

import pytest

import regard.data
from regard.data import KINDS, Address, parse_address
from regard.errors import RegardError


@pytest.mark.parametrize(
    ("text", "kind", "location"),
    [
        ("digits", "digits", ""),
        ("folder:some/where", "folder", "some/where"),
        ("folder:C:/pictures", "folder", "C:/pictures"),
        ("torchvision:CIFAR10", "torchvision", "CIFAR10"),
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


def test_every_offered_name_exists_and_is_declared():
    assert {"open_images", "Batch", "KINDS", "check_images"} <= set(dir(regard.data))
    for name in dir(regard.data):
        assert getattr(regard.data, name) is not None
    with pytest.raises(AttributeError, match="open_image"):
        regard.data.open_image  # noqa: B018


def test_parsing_an_address_does_not_import_torch():
    code = "import sys, regard.data; regard.data.parse_address('digits'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
