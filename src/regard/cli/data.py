"""`regard data`: kinds of data; a set is checked, mended, made."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from regard.cli.tables import show
from regard.cli.terminal import say
from regard.cli.train import Settings
from regard.errors import first_few

data = typer.Typer(help="Data sets: list the kinds, check one, mend one, make one.", no_args_is_help=True)

RecipeOption = Annotated[
    str | None, typer.Option(metavar="RECIPE", help="Open the data as this recipe does; the defaults hold otherwise.")
]


@data.command("list")
def list_kinds() -> None:
    """List the kinds of data address."""
    from regard.data import KINDS

    table = Table("address", "what it is")
    for kind, what in KINDS.items():
        table.add_row(kind, what)
    show(table)


@data.command()
def check(
    address: Annotated[str, typer.Argument(help="A data address, such as folder:PATH.")],
    recipe: RecipeOption = None,
    settings: Settings = None,
    root: Annotated[Path | None, typer.Option(help="Where torchvision's data sets are kept.")] = None,
    queries: Annotated[
        int | None,
        typer.Option(help="For boxes: the objects that the model can find in an image (100, or the recipe's).", min=1),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="PAGE.html|FOLDER",
            help="Write all of it with pictures as one page; or, for boxes, draw the suspects into a folder.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    leave_out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the names of near-doubles that are held out, and of placeholders: --set data.leave_out=FILE "
            "trains and evaluates without them.",
        ),
    ] = None,
) -> None:
    """Read all of a data set, images, boxes or text: what it is like, what is wrong, and which settings suit it.

    An error makes the exit status 1.
    """
    from regard.cli.check import check as check_and_print

    is_sound = check_and_print(
        address, recipe, settings or [], root, queries, out=out, as_json=as_json, leave_out=leave_out
    )
    if not is_sound:
        raise typer.Exit(1)


@data.command()
def fix(
    address: Annotated[str, typer.Argument(help="Data with annotation files: coco:PATH, yolo:PATH or voc:PATH.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FOLDER", help="The folder to make.")],
    recipe: RecipeOption = None,
    settings: Settings = None,
) -> None:
    """Write mended annotations into a new folder, with links to the images, and say what was changed."""
    from regard.api.check import fix_address

    repairs, mended = fix_address(address, out, recipe=recipe, settings=settings or ())
    table = Table("what was done", "where")
    rows = [
        *((f"mended: {len(places)} {kind}", places) for kind, places in repairs.healed.items()),
        *(
            (f"left out: {len(places)} {kind}", places)
            for kind, places in {**repairs.left_out, **repairs.unused}.items()
        ),
        *((f"passed over: {len(places)} {kind}", places) for kind, places in repairs.passed_over.items()),
    ]
    for what, places in rows:
        table.add_row(what, first_few(places))
    if rows:
        show(table)
    say(f"{'mended' if rows else 'nothing to mend'}; train on it with --data {mended}")


@data.command()
def make(
    name: Annotated[str, typer.Argument(help="`digits`, handwritten, or `digit-scenes`, scenes made of them.")],
    folder: Annotated[Path, typer.Argument(help="The folder to make.")],
    size: Annotated[
        int | None, typer.Option(help="Height and width of digits in pixels (8 unless given).", min=1)
    ] = None,
) -> None:
    """Write embedded data as files: one folder a class, or for scenes COCO's format."""
    from regard.data import make_folder

    count, address = make_folder(name, folder, size)
    say(f"{count} images in {folder}; train on them with --data {address}")
