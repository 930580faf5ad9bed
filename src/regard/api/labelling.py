"""Labelling with a model: its predictions as annotations that people correct, and train on."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from regard.errors import RegardError, first_few, unknown
from regard.files import expanded, require_new_folder

if TYPE_CHECKING:
    import torch

    from regard.tasks import Classifier, Detector, Predictor

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
    detector, "csv" for any. The images are hard links, or copies with `copy` and on another disk. threshold, nms and
    max_detections are as of `Detector.predict`. data, annotations: an address, or a file of COCO's, whose ids images
    and classes get. sort: "uncertain" puts those first of which the model is least sure (`tasks/labelling`).
    Images that cannot be read are left out and listed. RegardError where none can be read, and where `out` is not new.
    """
    from regard.data import BadImage
    from regard.tasks import DataIds, Detections, Detector, Prediction
    from regard.tasks.labelling.folder import address_of, names_in_folder, require_format, write_labels
    from regard.tasks.labelling.formats import Labelled, boxes_of, classes_of
    from regard.tasks.labelling.uncertainty import answers_of

    require_format(format)
    if sort not in SORTS:
        raise unknown("order of images", sort, SORTS)
    if data is not None and annotations is not None:
        raise RegardError("label: choose one of data and annotations")
    out = expanded(out)
    require_new_folder(out)
    files, notes = _files([images] if isinstance(images, str | Path) else images, out)
    predictor = _predictor(run, format, weights, device, with_ids=bool(data or annotations))
    image_ids: list[int | str] = list(range(1, len(files) + 1))
    ids = DataIds.of_data(data) if data else DataIds.of_annotations(Path(annotations)) if annotations else None
    if ids is not None:
        image_ids, by_name_alone = ids.of_files(files)
        if by_name_alone:
            images_of = "files are taken for the images of their names, in other folders"
            notes.append(f"{ids.where}: {len(by_name_alone)} {images_of}: {first_few(by_name_alone)}")
    options = {"threshold": threshold, "nms": nms, "max_detections": max_detections}
    answers = answers_of(predictor, files, options, unsure=sort == "uncertain")
    bad, read = [], []
    for file, name, image_id, (answer, unsure) in zip(files, names_in_folder(files), image_ids, answers, strict=True):
        if isinstance(answer, BadImage):
            bad.append(str(answer))
        else:
            read.append((file, Labelled(name, image_id, answer, unsure)))
    if not read:
        raise RegardError(
            f"{predictor.source or 'label'}: no image can be read: {first_few(bad, 1) or 'there is none'}"
        )
    read.sort(key=lambda pair: -(pair[1].uncertainty or 0.0))
    labelled, classes = [one for _, one in read], classes_of(predictor, ids)
    write_labels(labelled, [file for file, _ in read], classes, out, format, copy=copy)
    if empty := sum(isinstance(one.answer, Prediction) and not one.answer.labels for one in labelled):
        which = "images have no class that is probable enough, and an empty label"
        notes.append(f"{empty} {which}: give them one, or train with --set data.on_bad_annotation=skip")
    boxes = [one.answer for one in labelled if isinstance(one.answer, Detections)]
    kept = sum(1 for one in boxes for _ in boxes_of(one, classes))
    objects = kept if isinstance(predictor, Detector) else len(labelled)
    left_out = sum(len(one) for one in boxes) - kept
    return Labels(address_of(out, format), len(labelled), objects, left_out, tuple(bad), tuple(notes))


def _files(given: Iterable[str | Path], out: Path) -> tuple[list[Path], list[str]]:
    """The images, each once, and what else lies in their folders. RegardError where `out` would lie among them."""
    from regard.data import image_files, passed_over_line
    from regard.tasks.labelling.folder import require_outside

    files: dict[Path, None] = {}
    notes = []
    for path in map(expanded, given):
        found, others = image_files(path) if path.is_dir() else ([path], None)
        if path.is_dir():
            require_outside(out, path)
        files |= dict.fromkeys(found)
        if others:
            notes.append(f"{path}: {passed_over_line(others)}")
    return list(files), notes


def _predictor(
    run: "str | Path | Predictor", form: str, weights: str, device: "str | torch.device | None", *, with_ids: bool
) -> "Classifier | Detector":
    """What `run` names. RegardError where it cannot give such annotations."""
    from regard.tasks import Classifier, Detector

    if isinstance(run, str | Path):
        from regard.api.runs import load

        run = load(run, weights=weights, device=device)
    where = run.source or "label"
    if not isinstance(run, Classifier | Detector):
        raise RegardError(f"{where}: reads text; it is images that get labels")
    if isinstance(run, Classifier) and (form != "csv" or with_ids):
        what = "ids are" if form == "csv" else f"{form} is"
        raise RegardError(f"{where}: names the class of an image, which csv holds; {what} for runs that find boxes")
    return run
