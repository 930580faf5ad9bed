"""`regard explain`: what a model's answer rests on, and whether the picture of it is true."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from regard.cli.tables import right, show
from regard.cli.terminal import say, write_json
from regard.cli.text import Weights
from regard.cli.train import Device
from regard.cli.use import AsJson, RunArgument, image_paths
from regard.errors import RegardError

METHODS = (
    "rows, influence, rollout, relevance, gradient, gradient-x-input, grad-cam, occlusion, integrated-gradients; "
    "window and embeddings of local attention; points of a deformable detector, queries of a DETR over many images"
)


def _was_kind(value: str | None) -> None:
    """A usage error: what the option is called now."""
    if value is not None:
        now = {"matrix": "rows"}.get(value, value)
        raise typer.BadParameter(f"--kind is called --method now: --method {now}")


def explain(
    run: RunArgument,
    images: Annotated[list[Path] | None, typer.Argument(help="Image files, or folders of them.")] = None,
    method: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"{METHODS}. Unless given what the head takes in the last layer."),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(help="A block, from 0 (-1 is the last), or a detector's `cross.5`; unless given the last one."),
    ] = None,
    head: Annotated[int | None, typer.Option(help="One head, from 0; the mean over them unless given.")] = None,
    token: Annotated[list[str] | None, typer.Option(help="ROW,COLUMN of a patch, or `class`; may be repeated.")] = None,
    target: Annotated[
        str | None, typer.Option(metavar="CLASS", help="The class to explain, by name or number; else the likeliest.")
    ] = None,
    box: Annotated[int, typer.Option(help="Of a detector, which box; 0 is the most certain.", min=0)] = 0,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="PIXELS|HxW|image",
            help="What the model sees: a square, a height and width, or the whole image without a crop.",
        ),
    ] = None,
    faithfulness: Annotated[
        Literal["on", "off"],
        typer.Option(help="Judge the map by taking its patches away, beside chance and the centre (some 360 passes)."),
    ] = "on",
    text: Annotated[str | None, typer.Option(help="Of a run that reads text: the text to explain.")] = None,
    favor: Annotated[
        bool, typer.Option("--favor-error", help="Instead, tell how far performers are from softmax attention.")
    ] = False,
    bound: Annotated[float, typer.Option(help="Of that error: how many features come under it?")] = 0.1,
    weights: Weights = "model",
    device: Device = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="The folder for the pictures, or for one image a .png file; here unless given."
        ),
    ] = None,
    overlay: Annotated[
        bool,
        typer.Option("--overlay", help="Only the photograph with the map over it, in the size that the model saw."),
    ] = False,
    as_json: AsJson = False,
    page: Annotated[
        Path | None, typer.Option(help="Instead, one HTML file to look around in; it opens without a server.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="RUN", help="Of a page: another run on the same images, to compare with.")
    ] = None,
    kind: Annotated[str | None, typer.Option(hidden=True, callback=_was_kind)] = None,
) -> None:
    """Show what an answer rests on: one PNG an image, NAME-mixing.png, or NAME-METHOD.png; or JSON.

    Several images also get an index.html, which shows their pictures side by side.
    """
    from regard.api import explain_page, explain_text
    from regard.api.explanations import image_predictor
    from regard.explain import method_named

    method = method_named(method)
    if against is not None and page is None:
        raise RegardError("--against: compares two runs in a page; name its file with --page")
    if text is not None:
        if page is not None:
            raise RegardError("--page: is of images; what a text takes is a picture (leave --page out)")
        if images:
            raise RegardError(f"{run}: --text is for runs that read text; images are for those that read images")
        picture = _one_file(out, "text")
        explain_text(run, text, picture, layer=layer, weights=weights, device=device)
        say(f"{picture}")
        return
    if not images:
        raise RegardError("explain: name an image file, or a folder of them; or a text with --text")
    files = image_paths(images)
    if favor:
        _show_favor_error(run, files, bound, weights, device)
        return
    if method == "queries" and page is None:
        _require_none("--method queries", layer=layer, head=head, token=token, target=target, box=box or None)
        _show_queries(run, files, out, size, as_json, weights, device)
        return
    if page is not None:
        _require_of_page(head=head, token=token, box=box or None, out=out, json=as_json or None, overlay=overlay)
        for sentence in explain_page(
            run,
            files,
            page,
            against=against,
            method=method,
            layer=_number_or_name(layer),
            target=target,
            size=size,
            faithfulness=faithfulness == "on",
            weights=weights,
            device=device,
        ):
            say(sentence)
        say(f"{page}")
        return
    each = _Each(
        run,
        image_predictor(run, weights, device) if len(files) > 1 else run,
        {
            "method": method,
            "layer": _number_or_name(layer),
            "head": head,
            "tokens": token,
            "target": target,
            "box": box,
            "size": size,
            "faithfulness": faithfulness == "on",
            "weights": weights,
            "device": device,
        },
        overlay,
    )
    pictures = _pictures(files, method, out)
    bad = each.tell(files, [] if out is None else pictures) if as_json else each.draw(files, pictures)
    for message in bad:
        say(f"error: {message}", err=True)
    if bad:
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Each:
    """Explains one image after another. Images that cannot be read are named, and the others are done all the same."""

    run: str
    predictor: Any
    options: Mapping[str, Any]
    overlay: bool

    def _found(
        self, files: Sequence[Path], pictures: Sequence[Path | None], bad: list[str]
    ) -> Iterator[tuple[int, Any]]:
        from regard.api import explain_image
        from regard.data import BadImage

        for number, (file, picture) in enumerate(zip(files, pictures, strict=True)):
            try:
                found = explain_image(self.predictor, file, None if self.overlay else picture, **self.options)
            except BadImage as error:
                bad.append(str(error))
                continue
            if self.overlay and picture is not None:
                if not hasattr(found, "overlay"):
                    raise RegardError("--overlay: is of maps; several tokens, windows and embeddings are sheets")
                picture.parent.mkdir(parents=True, exist_ok=True)
                found.overlay().save(picture)
            yield number, found

    def tell(self, files: Sequence[Path], pictures: Sequence[Path]) -> list[str]:
        """Prints JSON, and writes the pictures if any are named. What could not be read is returned."""
        told: list[dict[str, Any]] = []
        bad: list[str] = []
        for number, found in self._found(files, pictures or [None] * len(files), bad):
            if not hasattr(found, "to_dict"):
                raise RegardError("--json is of maps; several tokens, windows and embeddings are pictures alone")
            told.append({"file_name": str(files[number]), **found.to_dict()})
        write_json(told)
        return bad

    def draw(self, files: Sequence[Path], pictures: Sequence[Path]) -> list[str]:
        """Writes the pictures; of several images also index.html, which shows them all."""
        from regard.api import explanation_index as index

        folder, many = pictures[0].parent, len(files) > 1
        if many:
            index.require_free(folder)
        entries: list[index.Entry] = []
        bad: list[str] = []
        for number, found in self._found(files, pictures, bad):
            say(f"{pictures[number]}")
            if many:
                entries.append(index.entry(files[number].name, pictures[number], found))
        if entries:
            method = self.options["method"] or "what the head takes"
            say(f"{index.write_index(folder, self.run, method, entries, bad)}")
        return bad


def _pictures(files: Sequence[Path], method: str | None, out: Path | None) -> list[Path]:
    """Where each image's picture goes; of images of one name each has its number."""
    if out is not None and out.suffix.lower() == ".png" and len(files) > 1:
        raise RegardError(f"{out}: is one file for {len(files)} images; name a folder with -o")
    stems = Counter(file.stem for file in files)
    shown = "mixing" if method in (None, "rows", "influence") else method
    names = [file.stem if stems[file.stem] == 1 else f"{file.stem}-{number}" for number, file in enumerate(files)]
    return [_one_file(out, f"{name}-{shown}") for name in names]


def _require_of_page(**given: object) -> None:
    for name, value in given.items():
        if value:
            raise RegardError(f"--page: takes no --{name}; the page shows every head, token and box")


def _require_none(what: str, **given: object) -> None:
    for name, value in given.items():
        if value is not None:
            raise RegardError(f"{what}: takes no --{name}; it shows the last layer's boxes of all queries")


def _show_queries(
    run: str, files: Sequence[Path], out: Path | None, size: str | None, as_json: bool, weights: str, device: str | None
) -> None:
    from regard.api import explain_queries

    path = None if as_json and out is None else _one_file(out, "queries")
    found = explain_queries(run, files, path, size=size, weights=weights, device=device)
    if as_json:
        write_json(found.to_dict())
    else:
        say(f"{path}")


def _one_file(out: Path | None, name: str) -> Path:
    if out is not None and out.suffix.lower() == ".png":
        return out
    return (out or Path()) / f"{name}.png"


def _number_or_name(layer: str | None) -> int | str | None:
    return int(layer) if layer is not None and layer.removeprefix("-").isdigit() else layer


def _show_favor_error(run: str, files: Sequence[Path], bound: float, weights: str, device: str | None) -> None:
    from regard.api import measure_favor_error

    heads = ("features", "matrix", "output", "mean of v", f"features for {bound:g}")
    table = Table("layer", *(right(head) for head in heads))
    for found in measure_favor_error(run, files, bound=bound, weights=weights, device=device):
        needed = "more than 4096" if found.features_needed is None else str(found.features_needed)
        errors = (f"{error:.3f}" for error in (found.matrix, found.output, found.mean_of_values))
        table.add_row(str(found.layer), str(found.num_features), *errors, needed)
    show(table)
    say(
        f"relative errors against softmax attention on {len(files)} images: of the attention matrix, of the output, "
        "and of the mean of the values, which is no attention at all"
    )
