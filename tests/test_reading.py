"""Text files from outside: what is read, and that every fault is one line."""

import os

import pytest

from regard.errors import RegardError
from regard.reading import parse_toml, read_json, read_text, read_xml, read_yaml

BOMB = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + i, 98 + i, b", ".join([b"*%c" % (97 + i)] * 9)) for i in range(9)
)


def read_toml(file):
    return parse_toml(read_text(file), str(file))


BAD = {
    "a bomb of aliases": (read_yaml, BOMB, "aliases make more than 1,000,000 values"),
    "many aliases": (read_yaml, b"a: &a 1\nb: [" + b"*a, " * 101 + b"*a]", "has more than 100 aliases"),
    "a list in itself": (read_yaml, b"&a [*a, *a]", "is not YAML"),
    "deep YAML": (read_yaml, b"[" * 20_000, "nested more than 100 deep"),
    "a list as key": (read_yaml, b"? [a]\n: b", "is not YAML"),
    "deep XML": (read_xml, b"<a>" * 50_000 + b"</a>" * 50_000, "nested more than 100 deep"),
    "entities": (read_xml, b'<!DOCTYPE x [<!ENTITY a "aa">]><x>&a;</x>', "declares entities"),
    "an unknown encoding": (read_xml, b'<?xml version="1.0" encoding="none"?><x>a</x>', "is not XML"),
    "no XML": (read_xml, b"", "is not XML"),
    "very deep JSON": (read_json, b"[" * 200_000, "nested more than 100 deep"),
    "deep JSON": (read_json, b"[" * 101 + b"]" * 101, "nested more than 100 deep"),
    "a long number": (read_json, b"1" * 5_000, "is not JSON"),
    "JSON in Latin-1": (read_json, b'"\xe9"', "is not JSON"),
    "deep TOML": (read_toml, b"a = " + b"[" * 20_000, "nested more than 100 deep"),
    "deep keys": (read_toml, b".".join([b"a"] * 5_000) + b" = 1", "nested more than 100 deep"),
    "a long number in TOML": (read_toml, b"a = " + b"1" * 5_000, "is not TOML"),
    "text in UTF-16": (read_text, "é".encode("utf-16"), "is not UTF-8"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line(name, tmp_path):
    read, data, expected = BAD[name]
    file = tmp_path / "file"
    file.write_bytes(data)
    with pytest.raises(RegardError) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_yaml_is_read_as_it_was_written(tmp_path):
    file = tmp_path / "data.yaml"
    file.write_text("\ufeffnames: [yes, no, 007, 2020-01-01, ~, 1e3]\ntrain: a\nval:\n", encoding="utf-8")
    names = ["yes", "no", "007", "2020-01-01", "~", "1e3"]
    assert read_yaml(file) == {"names": names, "train": "a", "val": ""}


def test_a_tag_of_python_runs_nothing(tmp_path):
    file = tmp_path / "data.yaml"
    file.write_text(f"!!python/object/apply:os.mkdir ['{tmp_path}/made']", encoding="utf-8")
    assert read_yaml(file) == [f"{tmp_path}/made"]
    assert not (tmp_path / "made").exists()


def test_an_alias_that_repeats_little_is_read(tmp_path):
    file = tmp_path / "data.yaml"
    file.write_text("a: &a [1, 2]\nb: *a\n", encoding="utf-8")
    assert read_yaml(file) == {"a": ["1", "2"], "b": ["1", "2"]}


def test_only_regular_files_of_bounded_size_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, expected in {"pipe": "is no regular file", ".": "is a directory", "none": "No such file"}.items():
        with pytest.raises(RegardError, match=expected):
            read_text(tmp_path / name)
    (tmp_path / "large").write_bytes(b"x" * 11)
    with pytest.raises(RegardError, match="at most"):
        read_text(tmp_path / "large", most=10)
    with pytest.raises(RegardError, match="cannot be read"):
        read_text(tmp_path / "a\0b")
