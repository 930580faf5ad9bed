"""`regard convert` and `regard push`: weights on their way to others."""

from pathlib import Path
from typing import Annotated

import typer

from regard.cli.terminal import say


def convert(
    source: Annotated[str, typer.Argument(help="A run folder, a file of weights, a pretrained model, or hf-hub:….")],
    destination: Annotated[Path, typer.Argument(help="The file to write: .safetensors, .pth, .pt, .bin, or .npz.")],
    to: Annotated[str, typer.Option(metavar="FORMAT", help="timm, transformers, torchvision, detr, google, regard.")],
    from_: Annotated[
        str | None, typer.Option("--from", metavar="FORMAT", help="The source's format; recognised unless given.")
    ] = None,
    ema: Annotated[
        bool, typer.Option("--ema/--no-ema", help="Of several in a file, take the averaged weights.")
    ] = True,
) -> None:
    """Write weights under another library's names."""
    from regard.api import convert as convert_weights

    say(convert_weights(source, destination, to=to, format=from_, use_ema=ema))


def push(
    run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")],
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the Hugging Face hub.")],
    private: Annotated[bool, typer.Option("--private", help="For yourself alone.")] = False,
    license: Annotated[
        str | None,
        typer.Option(help="Of the weights, such as apache-2.0. Else that of those they started from.", metavar="NAME"),
    ] = None,
) -> None:
    """Put a run on the Hugging Face hub, with a model card; `hf-hub:OWNER/NAME` is its name then."""
    from regard.api import push_to_hub

    say(push_to_hub(run, repo, private=private, license=license))
