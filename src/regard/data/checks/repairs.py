"""What a reader of annotations assumed, left out and passed over, as issues: one for each kind."""

from collections.abc import Sequence

from regard.data.boxes.coco_json import CocoFile
from regard.data.checks.issue import Issue, Severity, issues_of_kind
from regard.data.images.walk import image_files, passed_over_line
from regard.data.repairs import Repairs


def check_repairs(repairs: Repairs, address: str, severity: Severity, *, mended: bool = True) -> list[Issue]:
    """severity: of annotations that are left out; an error names the ways on. mended: whether `regard data fix` can."""
    issues: list[Issue] = []
    way_on = "; --set data.on_bad_annotation=skip leaves them out"
    way_on += f", and `regard data fix {address} -o FOLDER` mends" if mended else ""
    for kind, places in repairs.left_out.items():
        issues += _issues(severity, kind + (way_on if severity == "error" else "; they are left out"), places)
    for kind, places in (*repairs.healed.items(), *repairs.passed_over.items()):
        issues += _issues("warning", kind, places)
    if repairs.other_files:
        issues.append(Issue("warning", passed_over_line(repairs.other_files), address))
    return issues


def _issues(severity: Severity, kind: str, places: Sequence[str]) -> list[Issue]:
    return issues_of_kind(severity, "{count} " + kind.replace("{", "{{").replace("}", "}}"), places)


def check_unlisted(files: Sequence[CocoFile]) -> list[Issue]:
    """A warning for image files in the folders of COCO's files that none of their entries names."""
    listed = {file.file(index) for file in files for index in range(len(file.file_names))}
    folders = {file.folder for file in files if file.file_names and file.folder.is_dir()}
    found = {image for folder in folders for image in image_files(folder)[0]}
    unlisted = sorted(str(image) for image in found - listed)
    return issues_of_kind("warning", "{count} image files are in no annotation file that is read", unlisted)
