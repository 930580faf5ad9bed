"""`regard features`: the features of a data set's images, for other tools."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from regard.cli.terminal import say
from regard.cli.text import Weights
from regard.cli.train import Device, Settings
from regard.errors import RegardError


def features(
    address: Annotated[str, typer.Argument(help="A data address of images, with or without boxes: folder:PATH.")],
    model: Annotated[
        str, typer.Option(metavar="NAME|RUN", help="A pretrained model (`regard models`), or a run folder.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE.safetensors", help="The file to write.")],
    img_size: Annotated[
        int | None, typer.Option(help="Pixels of the square that a pretrained model sees; 224 unless given.", min=1)
    ] = None,
    settings: Settings = None,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], typer.Option(help="auto is bf16 where the processor or GPU is fast at it.")
    ] = "fp32",
    weights: Weights = "model",
    device: Device = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where features are kept for the next time; the user's cache folder otherwise.")
    ] = None,
    max_gb: Annotated[float, typer.Option(help="The most that this folder may hold, in GB.", min=1e-6)] = 10.0,
) -> None:
    """Write what a model sees in each image, with names and labels or boxes, into a safetensors file.

    An image that cannot be read is an error, or named on stderr with --set data.on_bad_image=skip.
    """
    from regard.api import features as features_of
    from regard.training import Bar

    if out.suffix != ".safetensors" or out.is_dir():
        raise RegardError(f"{out}: the features are written into one file; name it FILE.safetensors")
    found = features_of(
        address,
        model,
        img_size=img_size,
        settings=settings or (),
        precision=precision,
        weights=weights,
        device=device,
        folder=folder,
        max_gb=max_gb,
        progress=Bar().part(0, "features"),
    )
    found.save(out)
    for reason in found.skipped:
        say(f"left out: {reason}", err=True)
    held_out = int(found.part.sum())
    boxes = "" if found.box_image is None else f", {len(found.box_image):,} boxes"
    say(
        f"{out}: {len(found.names) - held_out:,} images to train on and {held_out:,} held out{boxes}; "
        f"{found.features.shape[1]:,} features each"
    )
