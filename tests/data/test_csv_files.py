"""`csv:PATH`: columns, separators and encodings that are read, and what is said of rows without a meaning."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from regard.data import BadImage, CsvOptions, check_images, fingerprint, open_images
from regard.data.images.csv_table import read_table
from regard.errors import RegardError

NAMES = [f"{number}.png" for number in range(12)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve different images, 0.png to 11.png, in a folder `set`."""
    draw = np.random.default_rng(0)
    (tmp_path / "set").mkdir()
    for name in NAMES:
        Image.fromarray(draw.integers(0, 256, (6, 7, 3), dtype=np.uint8)).save(tmp_path / "set" / name)
    return tmp_path / "set"


def write(
    folder: Path, *rows: str, head: str = "file,label", name: str = "labels.csv", encoding: str = "utf-8"
) -> Path:
    (folder / name).write_bytes("\n".join([head, *rows, ""]).encode(encoding))
    return folder / name


def two_classes(separator: str = ",") -> list[str]:
    return [f"{name}{separator}{('cat', 'dog')[number % 2]}" for number, name in enumerate(NAMES)]


def opened(file: Path, *, csv: CsvOptions | None = None, **arguments):
    return open_images(f"csv:{file}", channels=3, csv=csv, **arguments)


def labels_of(images) -> dict[str, tuple[str, ...]]:
    """The names of the classes of each image of both parts."""
    found = {}
    for source in (images.train, images.val):
        for index, label in enumerate(source.labels):
            own = (label,) if isinstance(label, int) else label
            found[Path(source.name(index)).name] = tuple(images.class_names[one] for one in own)
    return found


def test_files_and_labels_are_read_and_split_by_seed(folder):
    images = opened(write(folder, *two_classes()), split_seed=3)
    assert images.class_names == ("cat", "dog")
    assert not images.multi_label
    assert not images.has_val
    assert not images.remarks
    assert (len(images.train), len(images.val)) == (9, 3)
    assert labels_of(images) == {name: (("cat", "dog")[number % 2],) for number, name in enumerate(NAMES)}
    whole = torch.from_numpy(np.array(Image.open(images.train.name(4)))).permute(2, 0, 1)
    assert torch.equal(images.train.read(4), whole)
    again = opened(write(folder, *reversed(two_classes())), split_seed=3)
    assert fingerprint(again) == fingerprint(images), "the order of the rows does not matter"
    assert fingerprint(opened(folder / "labels.csv", split_seed=4)).val != fingerprint(images).val


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
def test_separators_and_encodings_are_found_out_and_said(folder, separator, encoding):
    rows = [row.replace("cat", "Käfer") for row in two_classes(separator)]
    file = write(folder, *rows, head=f"file{separator}label", encoding=encoding)
    images = opened(file)
    assert images.class_names == ("Käfer", "dog")
    words = {",": "commas", ";": "semicolons", "\t": "tabs"}[separator]
    called = {"utf-8": "UTF-8", "utf-8-sig": "UTF-8 with a byte order mark", "cp1252": "Windows-1252 (cp1252)"}
    said = f"labels.csv is read as {called.get(encoding, 'UTF-16')} with {words} between cells"
    assert images.remarks == (() if (encoding, separator) == ("utf-8", ",") else (said,))


def test_labels_with_semicolons_make_a_set_multi_label(folder):
    rows = [f"{name},{label}" for name, label in zip(NAMES, ["cat; dog", "dog;cat;", "bird"] * 4, strict=True)]
    images = opened(write(folder, *rows))
    assert images.multi_label
    assert images.class_names == ("bird", "cat", "dog")
    assert images.train.num_classes == images.val.num_classes == 3
    assert labels_of(images)["0.png"] == labels_of(images)["1.png"] == ("cat", "dog")
    for part in (images.train, images.val):
        assert {index for label in part.labels for index in label} == {0, 1, 2}
    quoted = write(
        folder, *(f'{name};"{"cat;dog" if name == "3.png" else "cat"}"' for name in NAMES), head="file;label"
    )
    assert labels_of(opened(quoted))["3.png"] == ("cat", "dog")
    loose = write(folder, *(f"{n};cat;dog" for n in NAMES), head="file;label", name="loose.csv")
    with pytest.raises(
        RegardError, match=r"12 rows have more cells .* \(a label that holds ';' must stand in quotes\)"
    ):
        opened(loose)
    bars = opened(write(folder, *(row.replace(";", "|") for row in rows)), csv=CsvOptions(label_separator="|"))
    assert labels_of(bars)["0.png"] == ("cat", "dog")
    one = opened(folder / "labels.csv", csv=CsvOptions(multi_label=False))
    assert one.class_names == ("bird", "cat| dog", "dog|cat|")


def test_columns_can_be_named_and_stand_anywhere(folder):
    rows = [f"{number},{row.replace(',', ',x,')}" for number, row in enumerate(two_classes())]
    file = write(folder, *rows, head="id, Image ,note,kind")
    with pytest.raises(RegardError) as told:
        opened(file)
    assert str(told.value) == (
        f"{file}: has no column 'file'; its first line names the columns 'id', 'Image', 'note', 'kind'; "
        "--set data.file_column=NAME chooses another one"
    )
    with pytest.raises(RegardError, match=r"has no column 'kinds'; did you mean 'kind'[?] .* data.label_column=NAME"):
        opened(file, csv=CsvOptions(file_column="image", label_column="kinds"))
    assert opened(file, csv=CsvOptions(file_column="image", label_column="kind")).class_names == ("cat", "dog")
    twice = write(folder, *two_classes(), head="file,FILE,label")
    with pytest.raises(RegardError, match="column 'File' stands 2 times"):
        opened(twice, csv=CsvOptions(file_column="File"))
    with pytest.raises(
        RegardError, match=r"folder:.*: data.file_column, data.multi_label and the like are for csv:PATH"
    ):
        open_images(f"folder:{folder}", channels=3, csv=CsvOptions(file_column="image"))


def test_excels_line_about_the_separator_is_understood(folder):
    file = write(folder, *two_classes(";")[:-1], "gone.png;cat", head="sep=;\nfile;label")
    with pytest.raises(RegardError, match=r"1 files are not there: gone.png \(line 14\)"):
        opened(file)
    assert opened(file, on_bad_annotation="skip").class_names == ("cat", "dog")


@pytest.mark.parametrize(("column", "words"), [("split", ("train", "val")), ("Part", ("Training", " valid"))])
def test_a_column_that_says_the_part_is_honoured(folder, column, words):
    rows = [f"{row},{words[number >= 8]}" for number, row in enumerate(two_classes())]
    images = opened(write(folder, *rows, head=f"file,label,{column}"))
    assert images.has_val
    assert [Path(images.val.name(index)).name for index in range(4)] == ["10.png", "11.png", "8.png", "9.png"]
    assert len(images.train) == 8
    assert opened(folder / "labels.csv", csv=CsvOptions(part_column="")).has_val is False


def test_test_is_held_out_where_nothing_else_is(folder):
    rows = [f"{row},{('train', 'test', 'val')[number % 3]}" for number, row in enumerate(two_classes())]
    images = opened(write(folder, *rows, head="file,label,split"))
    assert (len(images.train), len(images.val)) == (4, 4)
    assert images.remarks == ("4 files of the part test are not used; val is what is held out",)
    images = opened(write(folder, *(row for row in rows if not row.endswith("val")), head="file,label,split"))
    assert (len(images.train), len(images.val)) == (4, 4)
    everything = opened(write(folder, *two_classes()), for_evaluation=True)
    assert (len(everything.train), len(everything.val)) == (0, 12)
    none = write(folder, *(f"{row},val" for row in two_classes()), head="file,label,split")
    with pytest.raises(RegardError, match="none of its 12 files is of the part train"):
        opened(none)
    assert len(opened(none, for_evaluation=True).val) == 12
    folds = write(folder, *(f"{row},{number % 5}" for number, row in enumerate(two_classes())), head="file,label,split")
    with pytest.raises(
        RegardError, match=r"12 rows have in the column 'split' none of train, val or test; .*part_column="
    ):
        opened(folds)


BAD = {
    "gone.png,cat": "1 files are not there: gone.png (line 14)",
    "1.png,cat": "1 files have different labels in several rows, which data.multi_label=true would join: "
    "1.png (dog in line 3, cat in line 14)",
    "0.png,": "1 rows have an empty label: line 14 (0.png)",
    ",cat": "1 rows have no file: line 14",
    "0.png,cat,more": "1 rows have more cells than the first line has columns: line 14",
}


@pytest.mark.parametrize("row", BAD)
def test_a_row_without_a_meaning_stops_or_is_left_out_and_counted(folder, row):
    file = write(folder, *two_classes(), row)
    with pytest.raises(RegardError) as told:
        opened(file)
    assert str(told.value) == f"csv:{file}: {BAD[row]}; --set data.on_bad_annotation=skip leaves them out"
    images = opened(file, on_bad_annotation="skip")
    assert len(images.train) + len(images.val) == (11 if row == "1.png,cat" else 12)
    assert [f"{len(places)} {kind}: {places[0]}" for kind, places in images.repairs.left_out.items()] == [BAD[row]]
    for how, severity in (("stop", "error"), ("skip", "warning")):
        issues, _ = check_images(f"csv:{file}", on_bad_annotation=how)
        found = [issue for issue in issues if issue.what.startswith(BAD[row].partition(":")[0])]
        assert [issue.severity for issue in found] == [severity]
        assert "data fix" not in found[0].what


def test_several_kinds_of_bad_rows_are_one_line(folder):
    file = write(folder, *two_classes(), *BAD)
    with pytest.raises(RegardError) as told:
        opened(file)
    for row, said in BAD.items():
        assert said.partition(":")[0] in str(told.value), row
    assert len(opened(file, on_bad_annotation="skip").train) > 0
    assert str(told.value).count("\n") == 0


def test_rows_that_say_the_same_twice_are_one(folder):
    images = opened(write(folder, *two_classes(), "./0.png,cat"))
    assert len(images.train) + len(images.val) == 12
    assert images.repairs.healed == {"files stand in several rows that say the same": ["0.png"]}
    split = write(folder, *(f"{row},train" for row in two_classes()), "0.png,cat,val", head="file,label,split")
    with pytest.raises(RegardError, match=r"1 files are in several parts: 0.png \(train in line 2, val in line 14\)"):
        opened(split)


def test_said_to_be_multi_label_rows_are_joined_and_no_label_is_one(folder):
    file = write(folder, *two_classes(), "0.png,dog", "1.png,bird")
    images = opened(file, csv=CsvOptions(multi_label=True))
    found = labels_of(images)
    assert (found["0.png"], found["1.png"], found["2.png"]) == (("cat", "dog"), ("bird", "dog"), ("cat",))
    assert images.repairs.healed == {"files have their labels from several rows": ["0.png", "1.png"]}
    file = write(folder, *two_classes()[:-1], "11.png,")
    assert labels_of(opened(file, csv=CsvOptions(multi_label=True)))["11.png"] == ()
    one = opened(
        write(folder, *(f"{name},{'cat' if number % 2 else ''}" for number, name in enumerate(NAMES))),
        csv=CsvOptions(multi_label=True),
    )
    assert one.class_names == ("cat",)


def test_files_are_found_where_they_are_written_in_another_way(folder):
    (folder / "deep").mkdir()
    (folder / "0.png").rename(folder / "deep" / "0.png")
    (folder / "1.png").rename(folder / "1.JPG")
    rows = two_classes()
    rows[2] = r"C:\data\2.png,cat"
    rows[3] = f"{folder / '3.png'},dog"
    images = opened(write(folder, *rows))
    assert len(images.train) + len(images.val) == 12
    assert images.repairs.healed == {
        "paths are written in another way": ["0.png (line 2)", "C:\\data\\2.png (line 4)"],
        "files have another ending than stated": ["1.png (line 3)"],
    }
    elsewhere = two_classes()
    elsewhere[0] = "shallow/0.png,cat"
    with pytest.raises(RegardError, match=r"2 files are not there|1 files are not there: shallow/0.png"):
        opened(write(folder, *elsewhere))


def test_images_may_lie_in_another_folder(folder):
    (folder.parent / "tables").mkdir()
    file = write(folder.parent / "tables", *two_classes())
    with pytest.raises(RegardError) as told:
        opened(file)
    assert str(told.value) == (
        f"csv:{file}: none of its 12 files is there: 0.png, 1.png, 2.png and 9 more; they are looked for from "
        f"{file.parent}, and --set data.image_folder=FOLDER names another; {file.parent} holds no such files"
    )
    for place in (folder, Path("../set")):
        assert len(opened(file, csv=CsvOptions(image_folder=place)).train) == 9
    with pytest.raises(RegardError, match="nowhere: no such folder"):
        opened(file, csv=CsvOptions(image_folder=Path("nowhere")))


def test_files_that_are_no_table_are_told_apart(folder):
    with pytest.raises(RegardError, match=r"gone.csv: no such file"):
        opened(folder / "gone.csv")
    cases = {
        b"": "is empty; its first line must name the columns: file,label",
        b"\n \n": "is empty; its first line must name the columns: file,label",
        b"file,label\n": "has a first line and no rows",
        b"PK\x03\x04rest": "is a workbook or an archive, not text; save it as CSV",
        b"file,label\na.png,\x81\x8d": "is not text in any encoding that is read: UTF-8, UTF-8 with a byte order mark, "
        "UTF-16, Windows-1252 (cp1252)",
        b'file,label\na.png,"cat': "line 2: is not CSV: unexpected end of data",
        b"a.png,cat\nb.png,dog\n": "has no column 'file'; its first line names the columns 'a.png', 'cat'",
    }
    for content, wanted in cases.items():
        (folder / "labels.csv").write_bytes(content)
        with pytest.raises(RegardError) as told:
            opened(folder / "labels.csv")
        assert str(told.value).startswith(f"{folder / 'labels.csv'}: {wanted}"), content


def test_one_class_or_none_is_an_error_to_train_on(folder):
    file = write(folder, *(f"{name},cat" for name in NAMES))
    with pytest.raises(RegardError, match="two classes are needed, and all 12 images are 'cat'"):
        opened(file)
    assert opened(file, for_evaluation=True).class_names == ("cat",)
    with pytest.raises(RegardError, match="a class needs two images"):
        opened(write(folder, *two_classes()[:-1], "11.png,bird"))


def test_a_held_out_class_that_is_not_trained_on(folder):
    rows = [f"{row},{'val' if number > 8 else 'train'}" for number, row in enumerate(two_classes())]
    file = write(folder, *(row.replace("10.png,cat", "10.png,bird") for row in rows), head="file,label,split")
    with pytest.raises(RegardError, match=r"1 held-out files are of a class that no file is trained on: .*10.png"):
        opened(file)
    assert len(opened(file, on_bad_annotation="skip").val) == 2


def test_unreadable_images_stop_or_are_skipped(folder):
    (folder / "5.png").write_bytes(b"no image")
    file = write(folder, *two_classes())
    with pytest.raises(BadImage, match=r"5.png: not an image.* --set data.on_bad_image=skip leaves it out"):
        opened(file)
    images = opened(file, on_bad_image="skip")
    assert len(images.train) + len(images.val) == 11
    assert len(images.train.skipped) == 1
    assert not images.val.skipped


def test_a_folder_with_one_table_is_that_table(folder):
    write(folder, *two_classes())
    assert len(opened(folder).train) == 9
    write(folder, *two_classes(), name="more.csv")
    with pytest.raises(
        RegardError, match=r"is a folder; name the CSV file, or keep one in it; it has 2: labels.csv, more"
    ):
        opened(folder)


def test_numbers_are_in_the_order_of_their_values(folder):
    images = opened(write(folder, *(f"{name},{int(number / 2) * 5}" for number, name in enumerate(NAMES))))
    assert images.class_names == ("0", "5", "10", "15", "20", "25")


def test_the_same_bytes_stay_on_one_side(folder):
    (folder / "1.png").write_bytes((folder / "0.png").read_bytes())
    rows = [f"{name},{('cat;dog', 'dog', 'bird')[number // 2 % 3]}" for number, name in enumerate(NAMES)]
    file = write(folder, *rows)
    for seed in range(10):
        images = opened(file, split_seed=seed)
        held = {Path(images.val.name(index)).name for index in range(len(images.val))}
        assert len(held & {"0.png", "1.png"}) != 1


def test_a_table_tells_lines_and_cells(folder):
    file = write(folder, "", "a b.png , cat", '"c,d.png","x\ny"', "  ,", head="file,label")
    table = read_table(file, ("file", "label"))
    assert table.rows == [(3, ["a b.png", "cat"]), (5, ["c,d.png", "x\ny"])]


def test_a_multi_label_set_has_a_fingerprint_and_a_check(folder):
    rows = [f"{name},{label}" for name, label in zip(NAMES, ["cat;dog", "dog", "bird"] * 4, strict=True)]
    file = write(folder, *rows)
    found = fingerprint(opened(file))
    assert found.named()["0.png"] == "cat;dog"
    assert type(found).from_dict(found.to_dict()) == found
    issues, summary = check_images(f"csv:{file}")
    assert summary.class_counts == {"bird": 4, "cat": 4, "dog": 8}
    assert not [issue for issue in issues if issue.severity == "error"]


def test_a_multi_label_set_stays_one_without_some_images(folder):
    file = write(folder, *(f"{name},{('cat', 'cat;dog')[number % 2]}" for number, name in enumerate(NAMES)))
    listed = folder / "out.txt"
    listed.write_text("3.png\n4.png\n", encoding="utf-8")
    images = opened(file, leave_out=listed)
    assert labels_of(images).keys() == set(NAMES) - {"3.png", "4.png"}
    assert (images.train.num_classes, images.val.num_classes) == (2, 2)
