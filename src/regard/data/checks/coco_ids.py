"""What can be wrong with a COCO file itself: ids that repeat or lead nowhere."""

import numpy as np

from regard.data.boxes.coco_json import CocoFile
from regard.data.checks.issue import Issue, Severity
from regard.errors import first_few


def check_ids(file: CocoFile, severity: Severity) -> list[Issue]:
    """Ids of annotations that repeat (they are not used: a warning), and annotations of no image or category.

    severity: of annotations that are left out, as `on_bad_annotation` says.
    """
    where, issues = str(file.path), []
    if repeated := _repeated(file.ids):
        issues.append(Issue("warning", f"{len(repeated)} annotation ids repeat: {first_few(repeated)}", where))
    categories = np.array(file.category_ids, dtype=np.int64)
    for what, ids, known in (("image", file.of_image, file.image_ids), ("category", file.of_category, categories)):
        unexpected = ids[~np.isin(ids, known)]
        if len(unexpected):
            shown = first_few([str(value) for value in np.unique(unexpected).tolist()])
            switch = " (--set data.on_bad_annotation=skip takes the others)" if severity == "error" else ""
            message = f"annotations name no {what} of the file{switch}, and are left out: {what}_id {shown}"
            issues.append(Issue(severity, f"{len(unexpected)} of {len(ids)} {message}", where))
    values, counts = np.unique(np.array(file.file_names, dtype=object), return_counts=True)
    if repeated := values[counts > 1].tolist():
        message = f"file names are of several images, each with objects of its own: {first_few(repeated)}"
        issues.append(Issue("warning", f"{len(repeated)} {message}", where))
    return issues


def _repeated(ids: np.ndarray) -> list[str]:
    values, counts = np.unique(ids, return_counts=True)
    return [str(value) for value in values[counts > 1].tolist()]
