"""`regard predict --as`: predictions as annotations, to be corrected and trained on."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from regard.cli.terminal import say, write_json
from regard.errors import RegardError

if TYPE_CHECKING:
    from regard.tasks import Predictor


def predict_labels(
    predictor: "Predictor", files: list[Path], options: Mapping[str, Any], out: Path | None, form: Any, *, as_json: bool
) -> None:
    """Writes the annotations, and says what they are trained on by. options: as of `regard.label`."""
    from regard.api import label
    from regard.tasks import Classifier

    if out is None:
        raise RegardError(f"--as {form}: name the folder to write into with -o OUT")
    found = label(predictor, files, out, format=form, **options)
    for note in found.notes:
        say(note, err=True)
    if as_json:
        write_json({name: value for name, value in vars(found).items() if name != "notes"})
    else:
        images = f"{found.images} image{'s' * (found.images != 1)}"
        what = f"classes of {images}" if isinstance(predictor, Classifier) else f"{found.objects} objects in {images}"
        say(f"{what}: correct them in {out}, then train on them with --data {found.address}")
    if found.left_out:
        say(f"{found.left_out} boxes are left out: they have no extent, or a class that the data do not have", err=True)
    for message in found.bad:
        say(f"error: {message}", err=True)
    if found.bad:
        raise typer.Exit(1)
