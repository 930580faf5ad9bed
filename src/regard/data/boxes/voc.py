"""Pascal VOC's folders: an XML file for each image, which names its objects and the corners of their boxes."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import torch

from regard.data.boxes.sources import DetectionData, FileDetectionSource, Objects, in_two_splits
from regard.data.images.files import BadImage, check_header
from regard.data.images.paths import FilesBelow
from regard.data.images.pixels import ANY_SIZE
from regard.data.images.walk import files_below, image_files
from regard.data.repairs import OnBadAnnotation, Repairs
from regard.errors import RegardError
from regard.reading import read_text, read_xml

# Names of folders, without regard to case. Labelling tools also write the XML files beside the images.
ANNOTATIONS = ("annotations", "annotation", "annots", "xml", "xmls", "labels")
IMAGES = ("jpegimages", "images", "image", "imgs", "img", "photos")
SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",), "trainval": ("trainval",)}
CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass
class _Object:
    name: str
    corners: tuple[float, float, float, float]
    """Left, top, right, bottom, in pixels; edges, not numbers of pixels."""
    difficult: bool
    element: Element


@dataclass
class _Annotated:
    """One annotation file, its image, and the objects that can be used."""

    file: Path
    image: Path
    size: tuple[int, int]
    objects: list[_Object]
    root: Element


def open_voc(
    path: Path,
    *,
    channels: int,
    val_fraction: float | None = 0.25,
    split_seed: int = 0,
    on_bad_annotation: OnBadAnnotation = "stop",
) -> DetectionData:
    """PATH (or the only VOC20xx below it) with Annotations/*.xml and JPEGImages, or XML files beside the images.

    ImageSets/Main/train.txt and val.txt say which images are which, else folders `train` and `val`. Where there is no
    `train`, `trainval` is trained on; where there is no `val`, `test` is held out. Without any list, a split is drawn
    by seed. With `val_fraction` None, for data that are only evaluated on, there may be no `train`.
    Objects marked as difficult count as COCO's crowds: not trained on, and ignored in evaluation. Corners are numbered
    from 1 in the files. Classes are in alphabetical order. Raises RegardError.
    """
    address, repairs = f"voc:{path}", Repairs()
    splits = _read(path, address, repairs, needs_train=val_fraction is not None)
    repairs.require(address, on_bad_annotation)
    names = sorted({item.name for split in splits.values() for entry in split for item in entry.objects})
    if not names:
        raise RegardError(f"{address}: no annotation file has an object that can be used")
    sources = {
        split: FileDetectionSource(
            [entry.image for entry in entries],
            [entry.size for entry in entries],
            [_objects(entry.objects, names) for entry in entries],
            channels,
        )
        for split, entries in splits.items()
    }
    return in_two_splits(
        address,
        names,
        sources["train"],
        sources.get("val"),
        val_fraction=val_fraction,
        split_seed=split_seed,
        repairs=repairs,
    )


def fix_voc(path: Path, out: Path) -> Repairs:
    """Writes the annotations that can be used into OUT/Annotations, with links to their images in OUT/JPEGImages.

    A split that the data bring becomes lists in OUT/ImageSets/Main. Raises RegardError.
    """
    repairs = Repairs()
    splits = _read(path, f"voc:{path}", repairs, needs_train=False)
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    for split, entries in splits.items():
        stems = []
        for entry in entries:
            stem = entry.file.stem if entry.file.stem not in taken else f"{entry.file.parent.name}-{entry.file.stem}"
            taken.add(stem)
            stems.append(stem)
            place = out / "JPEGImages" / f"{stem}{entry.image.suffix}"
            place.symlink_to(os.path.relpath(entry.image.resolve(), place.parent.resolve()))
            _mend(entry, place.name)
            ElementTree.ElementTree(entry.root).write(out / "Annotations" / f"{stem}.xml", encoding="utf-8")
        if len(splits) > 1:
            lines = "".join(f"{stem}\n" for stem in stems)
            (out / "ImageSets" / "Main" / f"{split}.txt").write_text(lines, encoding="utf-8")
    return repairs


def _mend(entry: _Annotated, image: str) -> None:
    """Changes the XML to what was read from it: the objects that are kept, their corners in order, size and image."""
    root, kept = entry.root, {id(item.element) for item in entry.objects}
    for element in root.findall("object"):
        if id(element) not in kept:
            root.remove(element)
    for item in entry.objects:
        left, top, right, bottom = item.corners
        box = item.element.find("bndbox")
        assert box is not None
        for key, value in zip(CORNERS, (left + 1, top + 1, right, bottom), strict=True):
            _child(box, key).text = f"{value:g}" if value == round(value) else repr(value)
    _child(root, "filename").text = image
    size = _child(root, "size")
    for key, side in zip(("height", "width"), entry.size, strict=True):
        _child(size, key).text = str(side)


def _child(parent: Element, tag: str) -> Element:
    found = parent.find(tag)
    return ElementTree.SubElement(parent, tag) if found is None else found


def _read(path: Path, address: str, repairs: Repairs, *, needs_train: bool) -> dict[str, list[_Annotated]]:
    """The usable annotations: `train`, and `val` where the data have a split of their own."""
    if not path.is_dir():
        raise RegardError(f"{address}: is not a folder" if path.exists() else f"{address}: does not exist")
    root, folders = _layout(path, address)
    xml_files = {
        split: {file.relative_to(folder).with_suffix("").as_posix(): file for file in files_below(folder, ".xml")}
        for split, folder in folders.items()
    }
    found, repairs.other_files = image_files(root)
    for ending in (".xml", ".txt"):
        del repairs.other_files[ending]
    images = FilesBelow(root, found)
    splits = _splits(root, address, xml_files, repairs, needs_train=needs_train)
    read: dict[str, list[_Annotated]] = {}
    used: set[Path] = set()
    for split, files in splits.items():
        entries = [_annotated(root, file, images, repairs) for file in files]
        read[split] = [entry for entry in entries if entry is not None]
        used |= {entry.image for entry in read[split]}
        if not read[split] and (files or needs_train):
            why = "; ".join(places[0] for places in repairs.left_out.values())
            raise RegardError(f"{address}: no image of the part {split!r} can be used: {why or 'it lists none'}")
    for file in images.exact.values():
        if file not in used:
            repairs.pass_over("images have no annotation file that is used", file)
    listed = {file for files in splits.values() for file in files}
    for file in (file for files in xml_files.values() for file in files.values()):
        if file not in listed:
            repairs.pass_over("annotation files are in no list of the parts that are used", file)
    return read


def _layout(path: Path, address: str) -> tuple[Path, dict[str, Path]]:
    """The folder of the set, and the folders of its XML files: {"": ...} for all, or one for each part."""
    for root in sorted((path, *path.glob("VOC*"), *path.glob("VOCdevkit/VOC*"))):
        folder = _folder(root, ANNOTATIONS)
        if folder is not None and files_below(folder, ".xml"):
            return root, {"": folder}
    parts = {
        split: folder
        for split, names in SPLITS.items()
        for folder in [_folder(path, names)]
        if folder is not None and files_below(folder, ".xml")
    }
    if parts:
        return path, parts
    if files_below(path, ".xml"):
        return path, {"": path}
    raise RegardError(
        f"{address}: has no folder Annotations with XML files, neither by itself nor in a folder VOC20xx, and no XML "
        "files beside its images"
    )


def has_xml_files(path: Path) -> bool:
    """Whether a folder has XML files in a place of its own for them, or beside its images."""
    try:
        _, folders = _layout(path, "")
    except RegardError:
        return False
    return folders != {"": path} or any(path.glob("*.xml"))


def _folder(parent: Path, names: tuple[str, ...]) -> Path | None:
    if not parent.is_dir():
        return None
    there = {entry.name.lower(): entry for entry in sorted(parent.iterdir(), reverse=True) if entry.is_dir()}
    return next((there[name] for name in names if name in there), None)


def _splits(
    root: Path, address: str, xml_files: dict[str, dict[str, Path]], repairs: Repairs, *, needs_train: bool
) -> dict[str, list[Path]]:
    """The annotation files to train on and those held out; without lists or folders of parts, all to train on."""
    if "" in xml_files:
        every, main = xml_files[""], root / "ImageSets" / "Main"
        lists = {split: main / f"{name}.txt" for split, names in SPLITS.items() for name in reversed(names)}
        parts = {split: _listed(file, every, repairs) for split, file in lists.items() if file.is_file()}
    else:
        parts = {split: list(files.values()) for split, files in xml_files.items()}
    if not parts:
        return {"train": list(xml_files[""].values())}
    held_out = next((split for split in ("val", "test") if parts.get(split)), None)
    if "train" in parts:
        train = parts["train"]
        if held_out is None and (rest := [file for file in parts.get("trainval", []) if file not in set(train)]):
            return {"train": train, "val": rest}
    elif "trainval" in parts:
        train = [file for file in parts["trainval"] if file not in set(parts.get(held_out or "", []))]
    elif needs_train:
        stated = ", ".join(parts)
        raise RegardError(f"{address}: has a part {stated}, but neither train nor trainval (ImageSets/Main/train.txt)")
    else:
        train = []
    return {"train": train, "val": parts[held_out]} if held_out else {"train": train}


def _listed(list_file: Path, files: dict[str, Path], repairs: Repairs) -> list[Path]:
    """The annotation files that a list names: a line is a name, or a name and a number."""
    listed = []
    for number, line in enumerate(read_text(list_file).splitlines(), start=1):
        if not line.strip():
            continue
        whole, first = line.strip(), line.split()[0]
        names = (whole, first, Path(whole).stem if whole.lower().endswith((".xml", ".jpg", ".jpeg", ".png")) else first)
        file = next((files[name] for name in names if name in files), None)
        if file is None:  # a path that leads out of the folder is not there either
            repairs.leave_out("listed images have no annotation file", f"{list_file}, line {number}: {whole[:80]}")
        else:
            listed.append(file)
    return list(dict.fromkeys(listed))


def _annotated(root: Path, file: Path, images: FilesBelow, repairs: Repairs) -> _Annotated | None:
    """One annotation file; None where nothing in it can be used."""
    try:
        element = read_xml(file)
    except RegardError as error:
        repairs.leave_out("annotation files of images cannot be read", error)
        return None
    if element.tag != "annotation":
        repairs.leave_out("XML files of images hold no <annotation>", f"{file}: <{element.tag}>")
        return None
    image = _image(root, file, _text(element, "filename"), images, repairs)
    size = _size(element, file, image, repairs)
    if size is None:
        return None
    return _Annotated(file, image, size, list(_readable(element, file, size, repairs)), element)


def _image(root: Path, file: Path, stated: str, images: FilesBelow, repairs: Repairs) -> Path:
    """The image of an annotation file: with the name that is stated in it, else with its own; or where one belongs."""
    folder = _folder(root, IMAGES) or file.parent
    for name in (stated, file.stem):
        for place in (folder, file.parent):
            direct = place / name
            if name and direct.is_relative_to(root) and images.exact.get(direct.relative_to(root).as_posix()):
                return direct
        found, how = images.find(name) if name else (None, "")
        if found is not None:
            if name == stated and how:
                repairs.heal(f"image {how}", f"{file}: {stated}")
            return found
    # It is missing: the check says so, and an error names this path.
    return folder / (Path(stated.replace("\\", "/")).name or f"{file.stem}.jpg")


def _size(element: Element, file: Path, image: Path, repairs: Repairs) -> tuple[int, int] | None:
    """(height, width) as stated, or as the image's header says."""
    sides = [_number(_text(element, f"size/{key}")) for key in ("height", "width")]
    if all(side is not None and side.is_integer() and 1 <= side < 2**31 for side in sides):
        return int(sides[0] or 0), int(sides[1] or 0)
    try:
        size = check_header(image, ANY_SIZE)
    except BadImage as error:
        repairs.leave_out("annotation files state no size, and their images cannot be read", f"{file}: {error}")
        return None
    repairs.heal("annotation files state no size, and that of the image is taken", file)
    return size


def _readable(element: Element, file: Path, size: tuple[int, int], repairs: Repairs) -> Iterator[_Object]:
    """The objects of an annotation file that can be used."""
    for number, item in enumerate(element.findall("object")):
        where, name = f"{file}: object {number}", normalize("NFC", " ".join(_text(item, "name").split()))
        box = item.find("bndbox")
        numbers = [math.nan if box is None else _number(_text(box, key)) for key in CORNERS]
        corners = [number for number in numbers if number is not None and math.isfinite(number)]
        stated = "no bndbox" if box is None else ", ".join(f"{key} {_text(box, key)[:20]!r}" for key in CORNERS)
        if not name:
            repairs.leave_out("objects have no name", where)
            continue
        if len(corners) < 4:
            repairs.leave_out("boxes are not four finite numbers (xmin, ymin, xmax, ymax)", f"{where}: {stated}")
            continue
        left, top, right, bottom = corners
        if right < left or bottom < top:
            repairs.heal("boxes have their corners in another order", f"{where}: {stated}")
            left, right, top, bottom = min(left, right), max(left, right), min(top, bottom), max(top, bottom)
        left, top = left - 1, top - 1  # the first pixel is number 1, and a corner is a pixel, not an edge
        if left >= size[1] or top >= size[0] or right <= 0 or bottom <= 0:
            repairs.leave_out("boxes lie outside of their image", f"{where}: {stated}, in {size[1]} × {size[0]}")
            continue
        if left == right or top == bottom:
            repairs.heal("boxes have no width or height, and are left out", f"{where}: {stated}")
            continue
        difficult = _text(item, "difficult").lower() in ("1", "true", "yes")
        yield _Object(name, (left, top, right, bottom), difficult, item)


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _objects(items: list[_Object], names: list[str]) -> Objects:
    place = {name: label for label, name in enumerate(names)}
    boxes = torch.tensor([item.corners for item in items], dtype=torch.float32).view(-1, 4).clamp(-1e7, 1e7)
    labels = torch.tensor([place[item.name] for item in items], dtype=torch.int64)
    crowd = torch.tensor([item.difficult for item in items], dtype=torch.bool)
    return Objects(boxes, labels, (boxes[:, 2:] - boxes[:, :2]).prod(1), crowd)
