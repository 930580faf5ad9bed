"""Labelling with a model: its predictions as annotations that people correct, and train on."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from regard.errors import RegardError, first_few, unknown
from regard.files import expanded, require_new_folder

if TYPE_CHECKING:
    import torch

    from regard.tasks import Predictor

SORTS = ("name", "uncertain")


@dataclass(frozen=True)
class Labels:
    """What `label` wrote."""

    address: str
    """What `--data` takes, once they are corrected."""
    images: int
    objects: int
    """The boxes; of a classifier, as many as images."""
    left_out: int
    """Boxes without an extent, or of classes that the data named by `data` or `annotations` do not have."""
    bad: tuple[str, ...]
    """Images that could not be read, each with its reason; they are left out."""
    notes: tuple[str, ...]
    """What else is worth knowing: files that were passed over, images that were found by their names alone."""


def label(
    run: "str | Path | Predictor",
    images: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    format: Literal["coco", "yolo", "voc", "csv"] = "coco",
    sort: Literal["name", "uncertain"] = "name",
    threshold: float | str = "auto",
    nms: float | str = "auto",
    max_detections: int | None = None,
    data: str | None = None,
    annotations: str | Path | None = None,
    copy: bool = False,
    weights: str = "model",
    device: "str | torch.device | None" = None,
) -> Labels:
    """Predicts on images, and writes what is found as annotations into the new folder `out`, the images beside them.

    run: as of `load`, or what it gives. images: files, and folders of them. format: "coco", "yolo" or "voc" for a
    detector, "csv" for any. The images are links, or copies with `copy`. threshold, nms, max_detections: as of
    `Detector.predict`. data, annotations: an address, or a file of COCO's, whose ids images and classes get.
    sort: "uncertain" puts those first of which the model is least sure (`regard.tasks.labelling.uncertainty`).
    Images that cannot be read are left out and listed. RegardError where none can be read, and where `out` is not new.
    """
    from regard.data import BadImage, image_files, passed_over_line
    from regard.tasks import Classifier, DataIds, Detections, Detector
    from regard.tasks.labelling.folder import (
        address_of,
        names_in_folder,
        require_format,
        require_outside,
        write_labels,
    )
    from regard.tasks.labelling.formats import Labelled, boxes_of, classes_of
    from regard.tasks.labelling.uncertainty import answers_of

    require_format(format)
    if sort not in SORTS:
        raise unknown("order of images", sort, SORTS)
    if data is not None and annotations is not None:
        raise RegardError("label: choose one of data and annotations")
    out = expanded(out)
    require_new_folder(out)
    given = [expanded(path) for path in ([images] if isinstance(images, str | Path) else images)]
    require_outside(out, [path for path in given if path.is_dir()])
    if isinstance(run, str | Path):
        from regard.api.runs import load

        run = load(run, weights=weights, device=device)
    where = run.source or "label"
    if not isinstance(run, Classifier | Detector):
        raise RegardError(f"{where}: reads text; it is images that get labels")
    if isinstance(run, Classifier) and format != "csv":
        raise RegardError(
            f"{where}: names the class of an image, which csv holds; {format} is for runs that find boxes"
        )
    if isinstance(run, Classifier) and (data or annotations):
        raise RegardError(f"{where}: names the class of an image; ids are for runs that find boxes")
    files: dict[Path, None] = {}
    notes = []
    for path in given:
        found, others = image_files(path) if path.is_dir() else ([path], None)
        files |= dict.fromkeys(found)
        if others:
            notes.append(f"{path}: {passed_over_line(others)}")
    paths = list(files)
    ids = DataIds.of_data(data) if data else DataIds.of_annotations(Path(annotations)) if annotations else None
    image_ids: list[int | str] = list(range(1, len(paths) + 1))
    if ids is not None:
        image_ids, by_name_alone = ids.of_files(paths)
        if by_name_alone:
            notes.append(
                f"{ids.where}: {len(by_name_alone)} files are taken for the images of their names, in other folders: "
                f"{first_few(by_name_alone)}"
            )
    options = {"threshold": threshold, "nms": nms, "max_detections": max_detections}
    answers = zip(paths, image_ids, answers_of(run, paths, options, unsure=sort == "uncertain"), strict=True)
    bad, read, labelled = [], [], []
    for (file, image_id, (answer, unsure)), name in zip(answers, names_in_folder(paths), strict=True):
        if isinstance(answer, BadImage):
            bad.append(str(answer))
        else:
            read.append(file)
            labelled.append(Labelled(name, image_id, answer, unsure))
    if not labelled:
        raise RegardError(f"{where}: no image can be read: {first_few(bad, 1) or 'there is none'}")
    order = sorted(range(len(read)), key=lambda index: -(labelled[index].uncertainty or 0.0))
    labelled, read = [labelled[index] for index in order], [read[index] for index in order]
    classes = classes_of(run, ids)
    write_labels(labelled, read, classes, out, format, copy=copy)
    boxes = [one.answer for one in labelled if isinstance(one.answer, Detections)]
    every = sum(len(one) for one in boxes)
    kept = sum(1 for one in boxes for _ in boxes_of(one, classes))
    objects = kept if isinstance(run, Detector) else len(labelled)
    return Labels(address_of(out, format), len(labelled), objects, every - kept, tuple(bad), tuple(notes))
