"""`pydoc` and `text:PATH`: what is read, where it is split, and what is refused."""

import os
from pydoc_data.topics import topics

import pytest

from regard.data import check_text, open_text
from regard.data.text.corpus import paragraphs
from regard.errors import RegardError


def words(text: str) -> str:
    return " ".join(text.split())


def test_pydoc_is_pythons_manual_without_what_is_said_twice():
    data = open_text("pydoc")
    text = data.train + data.val
    assert data.address == "pydoc"
    assert len(data.val) == -(-len(text) // 10)
    assert 200_000 < len(text) < sum(map(len, topics.values()))
    parts = [words(part) for part in paragraphs(text)]
    assert len(parts) == len(set(parts))
    assert set(parts) == {words(part) for topic in topics.values() for part in paragraphs(topic)}
    assert words(text).startswith(words(topics[min(topics)])[:200])
    assert "The “with” statement" in text or 'The "with" statement' in text


def test_little_of_the_held_out_manual_is_trained_on():
    data = open_text("pydoc")
    train, val, length = words(data.train), words(data.val), 60
    known = {train[i : i + length] for i in range(len(train) - length + 1)}
    seen = [val[i : i + length] in known for i in range(len(val) - length + 1)]
    assert sum(seen) < 0.02 * len(seen)  # of the manual as it is: a tenth


def test_a_file_is_split_at_its_end(tmp_path):
    file = tmp_path / "a.text"
    file.write_bytes("\ufeffdrücken,\r\nsägen, nähen".encode())
    data = open_text(f"text:{file}", val_fraction=0.25)
    assert (data.address, data.train, data.val) == (f"text:{file}", "drücken,\nsägen,", " nähen")


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path):
    for name in ("b.md", "a.txt", "sub/c.TXT", "ignored.py", ".hidden.txt", ".git/x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"This is {name}.", encoding="utf-8")
    data = open_text(f"text:{tmp_path}", val_fraction=0.3)
    assert data.train + data.val == "This is a.txt.\n\nThis is b.md.\n\nThis is sub/c.TXT."


def test_paragraphs_lie_between_empty_lines():
    assert paragraphs("\n one\n  two\n \t\n\nthree\n\n") == [" one\n  two", "three"]
    assert paragraphs(" \n\n ") == []


def test_what_cannot_be_opened(tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"caf\xc3\xa9\xff")
    (tmp_path / "empty.txt").write_bytes(b" \n")
    (tmp_path / "short.txt").write_bytes(b"a")
    (tmp_path / "folder").mkdir()
    for name, said in {
        "bad.txt": r"bad\.txt: is not UTF-8: byte 5 of the file",
        "empty.txt": r"empty\.txt: the text is empty",
        "short.txt": r"short\.txt: the text is too short to hold out 0\.1 of it \(1 characters\)",
        "folder": r"folder: no text in this folder; known endings: \.txt \.md",
        "none": "none: no such file or folder",
    }.items():
        with pytest.raises(RegardError, match=said) as caught:
            open_text(f"text:{tmp_path / name}")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fraction", [0.0, 1.0, 7.0])
def test_a_fraction_that_is_none(fraction):
    with pytest.raises(RegardError, match=r"pydoc: val_fraction is .*between 0 and 1"):
        open_text("pydoc", val_fraction=fraction)


def test_a_file_that_cannot_be_read_stops_and_can_be_skipped(tmp_path):
    (tmp_path / "a.txt").write_text("one two three", encoding="utf-8")
    (tmp_path / "b.txt").write_bytes(b"caf\xe9")
    (tmp_path / "._a.txt").write_bytes(b"\xff")
    os.mkfifo(tmp_path / "c.txt")
    with pytest.raises(RegardError, match=r"b\.txt: is not UTF-8.*and 1 more such files.*data\.on_bad_line=skip"):
        open_text(f"text:{tmp_path}")
    text = open_text(f"text:{tmp_path}", on_bad_line="skip")
    assert text.train + text.val == "one two three"
    assert len(text.skipped) == 2
    issues, _ = check_text(f"text:{tmp_path}")
    assert [issue.severity for issue in issues] == ["error", "error"]
    with pytest.raises(RegardError, match="is no regular file"):
        open_text(f"text:{tmp_path / 'c.txt'}", on_bad_line="skip")


def test_text_that_is_only_measured_need_not_be_cut(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(RegardError, match="too short to hold out"):
        open_text(f"text:{tmp_path}")
    text = open_text(f"text:{tmp_path}", val_fraction=None)
    assert (text.train, text.val) == ("x", "")
