"""`regard data fix`: from a data address to a folder with annotations that nothing has to be said of."""

from pathlib import Path

from regard.data.addresses import parse_address
from regard.data.boxes.coco_layout import Annotations
from regard.data.repairs import Repairs
from regard.errors import RegardError
from regard.files import expanded, require_new_folder, whole_folder

_FORMATS = ("coco", "yolo", "voc")


def fix_data(address: str, out: Path, *, annotations: Annotations | None = None) -> tuple[Repairs, str]:
    """Writes the mended annotations of an address into a new folder, in the format that was read.

    annotations: COCO's files, where they are not where they are looked for. Images become links to those that are
    there. The folder is whole or not there. Returns what was changed, and the address of the folder. RegardError for
    data without annotation files, and for a folder that exists with something in it, or lies among the data.
    """
    parsed = parse_address(address)
    if parsed.kind not in _FORMATS:
        kinds = ", ".join(f"{kind}:PATH" for kind in _FORMATS)
        raise RegardError(f"{address}: has no annotation files to mend; these have: {kinds}")
    path, out = expanded(parsed.location), expanded(out)
    if annotations not in (None, Annotations()) and parsed.kind != "coco":
        raise RegardError(f"{address}: data.train_annotations and the like are for coco:PATH")
    require_new_folder(out)
    if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
        raise RegardError(f"{out}: lies in {path}, whose files would then be there twice; choose another folder")
    with whole_folder(out) as folder:
        repairs = _fix(parsed.kind, path, folder, annotations)
    return repairs, f"{parsed.kind}:{out}"


def _fix(kind: str, path: Path, out: Path, annotations: Annotations | None) -> Repairs:
    if kind == "coco":
        from regard.data.boxes.fix_coco import fix_coco

        return fix_coco(path, out, annotations)
    if kind == "yolo":
        from regard.data.boxes.yolo import fix_yolo

        return fix_yolo(path, out)
    from regard.data.boxes.voc import fix_voc

    return fix_voc(path, out)
