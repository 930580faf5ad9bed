"""`pairs:PATH`: files of pairs, their split, and errors that name file and line."""

from pathlib import Path

import pytest

from regard.data import LinePairs, open_pairs
from regard.errors import RegardError


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + "\n" for line in lines).encode())
    return path


def content(source: LinePairs) -> list[tuple[str, str]]:
    return [source.pair(i) for i in range(len(source))]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "all.tsv", *(f"source {i}\ttarget {i}" for i in range(1, 12)))


def test_a_file_is_split_by_seed(file):
    data = open_pairs(f"pairs:{file}", val_fraction=0.25, split_seed=1)
    assert (data.address, data.groups, data.bleu_tokenize) == (f"pairs:{file}", (), "13a")
    assert (len(data.train), len(data.val)) == (8, 3)
    assert {*content(data.train), *content(data.val)} == {(f"source {i}", f"target {i}") for i in range(1, 12)}
    source, _ = data.val.pair(2)
    assert data.val.name(2) == f"{file}:{source.removeprefix('source ')}"
    assert data.val.group(2) == ""
    assert content(open_pairs(f"pairs:{file}", val_fraction=0.25, split_seed=1).val) == content(data.val)
    assert content(open_pairs(f"pairs:{file}", val_fraction=0.25, split_seed=2).val) != content(data.val)


def test_all_pairs_of_a_source_fall_into_one_part(tmp_path):
    file = write(tmp_path / "a.tsv", *(f"{source}\t{target}" for target in "xyz" for source in "abcde"))
    data = open_pairs(f"pairs:{file}", val_fraction=0.4)
    held_out = {source for source, _ in content(data.val)}
    assert len(held_out) == 2
    assert len(data.val) == 6
    assert not held_out & {source for source, _ in content(data.train)}


def test_a_folder_has_its_own_held_out_part(tmp_path):
    write(tmp_path / "train.tsv", "a\t1", "b\t2", "a\t3")
    write(tmp_path / "val.tsv", "a\t1")
    data = open_pairs(f"pairs:{tmp_path}")
    assert content(data.train) == [("a", "1"), ("b", "2"), ("a", "3")]
    assert content(data.val) == [("a", "1")]
    assert data.val.name(0) == f"{tmp_path / 'val.tsv'}:1"


def test_text_is_kept_as_it_is_but_for_line_ends_and_a_mark(tmp_path):
    (tmp_path / "val.tsv").write_bytes(b"\xef\xbb\xbf a  b\t c \r\n\xc3\xa9\xe2\x80\xa8\tlast line without end")
    write(tmp_path / "train.tsv", "a\tb")
    data = open_pairs(f"pairs:{tmp_path}")
    assert content(data.val) == [(" a  b", " c "), ("é\u2028", "last line without end")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"no tab", "no tab, where one tab separates source and target"),
        (b"", "no tab"),
        (b"a\tb\tc", "2 tabs"),
        (b" \tb", "the source, before the tab, is empty"),
        (b"a\t", "the target, behind the tab, is empty"),
        (b"a\t\r", "the target, behind the tab, is empty"),
        (b"a\tb\xff", "is not UTF-8: byte 13 of the file"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, said):
    file = tmp_path / "a.tsv"
    file.write_bytes(b"one\t1\nb\t2\n" + line + b"\nthree\t3\n")
    with pytest.raises(RegardError) as caught:
        open_pairs(f"pairs:{file}")
    assert str(caught.value).startswith(f"{file}:3: {said}")
    assert "\n" not in str(caught.value)


def test_the_byte_is_counted_from_the_files_beginning_with_its_mark(tmp_path):
    file = tmp_path / "a.tsv"
    file.write_bytes(b"\xef\xbb\xbfa\t\xff\n")
    with pytest.raises(RegardError, match=r"a\.tsv:1: is not UTF-8: byte 5 of the file"):
        open_pairs(f"pairs:{file}")


def test_several_bad_lines_are_counted_and_can_be_left_out(tmp_path):
    file = write(tmp_path / "a.tsv", "a\t1", "b", "c\t3", "d\t", "e\t5")
    with pytest.raises(
        RegardError, match=r"a\.tsv:2: no tab.* \(and 1 more such lines\); --set data\.on_bad_line=skip"
    ):
        open_pairs(f"pairs:{file}")
    data = open_pairs(f"pairs:{file}", val_fraction=0.3, on_bad_line="skip")
    assert [message.split(":")[-2:] for message in data.train.skipped] == [
        ["2", " no tab, where one tab separates source and target"],
        ["4", " the target, behind the tab, is empty"],
    ]
    assert data.val.skipped == ()
    assert {*content(data.train), *content(data.val)} == {("a", "1"), ("c", "3"), ("e", "5")}
    only = "a\t1"
    with pytest.raises(RegardError, match=r"two different sources are needed.*; left out: .*c\.tsv:2: no tab"):
        open_pairs(f"pairs:{write(tmp_path / 'c.tsv', only, 'b')}", on_bad_line="skip")
    with pytest.raises(RegardError, match=r"b\.tsv:1: no tab"):
        open_pairs(f"pairs:{write(tmp_path / 'b.tsv', 'a')}", on_bad_line="skip")


def test_what_cannot_be_opened(tmp_path):
    (tmp_path / "empty.tsv").write_bytes(b"")
    write(tmp_path / "one.tsv", "a\t1", "a\t2")
    write(tmp_path / "half" / "train.tsv", "a\t1")
    for name, said in {
        "none.tsv": "none.tsv: no such file or folder; expected lines of SOURCE<TAB>TARGET",
        "empty.tsv": "empty.tsv: is empty",
        "one.tsv": "one.tsv: two different sources are needed",
        "half": "half: no val.tsv in this folder",
        "": "no train.tsv and no val.tsv in this folder",
    }.items():
        with pytest.raises(RegardError, match=said):
            open_pairs(f"pairs:{tmp_path / name}")
    two = "a\t1\nb\t2"
    with pytest.raises(RegardError, match=r"val_fraction is 0\.0; it must lie between 0 and 1"):
        open_pairs(f"pairs:{write(tmp_path / 'two.tsv', two)}", val_fraction=0.0)


def test_the_whole_holds_both_parts(tmp_path):
    (tmp_path / "all.tsv").write_text("".join(f"source {i}\ttarget {i}\n" for i in range(7)), encoding="utf-8")
    pairs = open_pairs(f"pairs:{tmp_path / 'all.tsv'}", val_fraction=0.3)
    assert not pairs.has_val
    assert len(pairs.whole) == 7
    assert {pairs.whole.pair(i)[0] for i in range(7)} == {f"source {i}" for i in range(7)}
    assert pairs.whole.name(0) == pairs.train.name(0)
    assert pairs.whole.name(6) == pairs.val.name(len(pairs.val) - 1)
    assert pairs.whole.group(6) == ""


def test_pairs_that_are_only_measured_need_not_be_fit_for_training(tmp_path):
    (tmp_path / "val.tsv").write_text("one\t1\n")
    for address in (f"pairs:{tmp_path / 'val.tsv'}", f"pairs:{tmp_path}"):
        with pytest.raises(RegardError):
            open_pairs(address)
        pairs = open_pairs(address, val_fraction=None)
        chosen = pairs.val if pairs.has_val else pairs.whole
        assert [chosen.pair(index) for index in range(len(chosen))] == [("one", "1")]
