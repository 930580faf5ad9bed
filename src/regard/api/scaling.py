"""What mixers cost as images grow."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from regard.api.names import device_named
from regard.errors import RegardError
from regard.files import expanded, require_new_folder

if TYPE_CHECKING:
    import torch

    from regard.compare.scale import Scale


def scale(
    mixers: str | Sequence[str] = "all",
    *,
    max_tokens: int = 50_176,
    embed_dim: int = 192,
    step: str = "forward",
    seconds: float = 60.0,
    threads: int | None = None,
    device: "str | torch.device | None" = None,
    out: str | Path | None = None,
    json_file: str | Path | None = None,
    command: str = "",
    improved: "Callable[[Scale], object] | None" = None,
) -> "Scale":
    """Times token mixers alone on one image of 49 tokens to `max_tokens`, in rounds, for `seconds` in all.

    mixers: names with commas between or in a list, or "all". step: "forward", "training" (forward, backward and AdamW),
    or "both". device: a GPU, where there is one, unless given. out: a folder to make, for a page with charts and the
    figures; json_file: the figures alone. Both are written when each mixer has its first curve, and after rounds.
    `improved` gets the curves then.
    The result holds for each mixer its timings, the fitted cost a + bN + cN² + eN log N with its slope at the end, and
    from where on it costs less than attention.
    RegardError for an unknown mixer, one named twice, numbers out of range, and a folder that is not new.
    """
    from regard.compare.scale import scale as measure
    from regard.compare.scale_page import record_of_scale, write_scale
    from regard.files import write_json

    folder = None if out is None else expanded(out)
    file = None if json_file is None else expanded(json_file)
    if folder is not None:
        require_new_folder(folder)
    if file is not None and file.is_dir():
        raise RegardError(f"{file}: is a folder; --json names a file")

    def write(found: "Scale") -> None:
        if folder is not None:
            write_scale(folder, found, command)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, record_of_scale(found, command))
        if improved is not None:
            improved(found)

    return measure(
        mixers,
        max_tokens=max_tokens,
        embed_dim=embed_dim,
        step=step,
        seconds=seconds,
        threads=threads,
        device=str(device_named(device)),
        improved=write,
    )
