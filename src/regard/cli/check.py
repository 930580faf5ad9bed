"""What `regard data check` prints, and the files that it writes."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from regard.cli.boxes import write_suspects
from regard.cli.tables import right, show
from regard.cli.terminal import say, write_json
from regard.errors import RegardError, first_few

if TYPE_CHECKING:
    from regard.api.check import Examination
    from regard.tasks import Facts

LARGEST = 12  # classes that are listed
SAID = 500  # images; where there is no terminal, fewer are read without a word


def check(
    address: str,
    recipe: str | None,
    settings: list[str],
    root: Path | None,
    queries: int | None,
    *,
    out: Path | None,
    as_json: bool,
    leave_out: Path | None,
) -> bool:
    """Prints one screen, or JSON; writes a page or pictures, and the list of images to leave out.

    True without errors.
    """
    from regard.api.check import examine, write_list
    from regard.training import Bar

    if out is not None and out.suffix.lower() in (".html", ".htm") and not out.parent.is_dir():
        raise RegardError(f"{out}: cannot be written: {out.parent} is not a folder")
    with Bar().part(0, "reading images") as bar:
        found = examine(
            address,
            recipe=recipe,
            settings=settings,
            num_queries=queries,
            root=root,
            told=lambda count, total: bar.update(count / total, f"{count} of {total} images" if count >= SAID else ""),
        )
    if as_json:
        write_json(found.to_dict())
    else:
        _show(found)
    if out is not None and out.suffix.lower() in (".html", ".htm"):
        from regard.api.check_page import write_page

        write_page(found, out)
        say(f"page: {out}", err=as_json)
    elif out is not None and found.suspects:
        write_suspects(found.suspects, out, err=as_json)
    if leave_out is not None:
        count = write_list(found, leave_out)
        say(f"{count} images to leave out: {leave_out}; train with --set data.leave_out={leave_out}", err=as_json)
    if not as_json:
        say(f"{found.summary}; {found.errors} errors, {len(found.issues) - found.errors} warnings")
    return not found.errors


def _show(found: "Examination") -> None:
    if found.facts:
        say(f"data     {found.address}")
        _show_facts(found, found.facts)
    table = Table("severity", "what", "where")
    for issue in (*found.issues, *found.advice):
        where = "" if found.facts and issue.where == found.address else found.short(issue.where)
        table.add_row(issue.severity, found.short(issue.sentence), where)
    if found.issues or found.advice:
        show(table)


def _show_facts(found: "Examination", facts: "dict[str, Facts]") -> None:
    first = next(iter(facts.values()))
    counts = sorted(first.class_counts.items(), key=lambda item: (-item[1], item[0]))
    things = "boxes" if first.task == "detection" else "images"
    listed = ", ".join(f"{name} {count}" for name, count in counts[:LARGEST])
    if len(counts) > LARGEST:
        listed += f", ... and {len(counts) - LARGEST} more, the smallest {counts[-1][0]} {counts[-1][1]}"
    split = "the data's own split" if first.has_val else "drawn by seed: --set data.val_fraction, data.split_seed"
    say(f"images   {first.num_train} to train on, {first.num_val} held out ({split})")
    if first.image_sizes:
        low, half, high = (f"{height} × {width}" for height, width in first.image_sizes)
        say(
            f"sizes    {half} pixels" if low == high else f"sizes    quartiles of height × width: {low}, {half}, {high}"
        )
    say(f"classes  {things} to train on: {listed}" if counts else "labels   none")
    if len(counts) > 1:
        say(f"balance  the largest class has {first.imbalance:.1f} times the {things} of the smallest")
    if first.task != "detection":
        return
    most = f"at most {first.most_objects} in an image: a model that can find {first.suggested_queries} is enough"
    say(f"objects  {first.num_boxes} to train on, {most}")
    if first.unlabelled:
        say(f"         {len(first.unlabelled)} images have none: {found.short(first_few(first.unlabelled))}")
    if first.object_sides:
        table = Table(
            "objects' sides in pixels",
            right("at most"),
            right("quarter"),
            right("half"),
            right("three quarters"),
            "data.shortest and longest",
        )
        for name, one in facts.items():
            size = "do" if one.suggested_size is None else "{} and {} would do".format(*one.suggested_size)
            table.add_row(
                f"as {name} sees them",
                "{} × {}".format(*one.seen_size),
                *(f"{side:.0f}" for side in one.object_sides),
                size,
            )
        show(table)
