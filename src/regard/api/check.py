"""Data are checked and mended as a recipe, or the options of a training, open them."""

from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

from regard.errors import RegardError
from regard.files import expanded

if TYPE_CHECKING:
    from regard.data import DetectionSummary, Issue, PairSummary, Repairs, Summary, Suspect, TextSummary

QUERIES = "model.num_queries="


def check_address(
    address: str,
    *,
    recipe: str | None = None,
    settings: Sequence[str] = (),
    num_queries: int | None = None,
    root: Path | None = None,
) -> "tuple[list[Issue], DetectionSummary | PairSummary | Summary | TextSummary, Sequence[Suspect]]":
    """Reads all of a data set as a training would: what is wrong, how much there is, and images to look at.

    recipe, settings: as `regard train` takes them; without a recipe, settings are those of the data (data.strict=true)
    and model.num_queries. num_queries: the objects that a model can find in an image; unless given, those of settings
    or recipe, or 100. RegardError for data that cannot be opened at all.
    """
    from regard.api.training import data_section
    from regard.data import SORTS, check_detection, check_images, check_pairs, check_text, parse_address
    from regard.recipes import DetectionDataSection
    from regard.recipes.sections import ImageDataSection, TextDataSection
    from regard.tasks import annotations_of, csv_options

    kind = parse_address(address).kind
    options = data_section(address, recipe, [text for text in settings if recipe or not text.startswith(QUERIES)])
    seed = options.split_seed
    fraction = options.val_fraction
    if recipe is None and "val_fraction" not in options.model_fields_set and not isinstance(options, ImageDataSection):
        fraction = 0.1  # of texts, as `open_pairs` and `open_text` hold out
    issues: list[Issue]
    summary: DetectionSummary | PairSummary | Summary | TextSummary
    suspects: Sequence[Suspect] = ()
    if isinstance(options, DetectionDataSection):
        issues, summary, suspects = check_detection(
            address,
            num_queries=num_queries or _num_queries(address, recipe, settings),
            annotations=annotations_of(options),
            val_fraction=fraction,
            split_seed=seed,
            on_bad_image=options.on_bad_image,
            on_bad_annotation=options.on_bad_annotation,
            max_megapixels=options.max_megapixels,
            strict=options.strict,
        )
    elif isinstance(options, ImageDataSection):
        issues, summary = check_images(
            address,
            val_fraction=fraction,
            split_seed=seed,
            root=root or (None if options.root is None else expanded(options.root)),
            on_bad_image=options.on_bad_image,
            max_megapixels=options.max_megapixels,
            strict=options.strict,
            on_bad_annotation=getattr(options, "on_bad_annotation", "stop"),
            csv=csv_options(options),
        )
    elif isinstance(options, TextDataSection) and kind in SORTS["pairs of texts"]:
        issues, summary = check_pairs(address, val_fraction=fraction, split_seed=seed, on_bad_line=options.on_bad_line)
    elif isinstance(options, TextDataSection):
        issues, summary = check_text(address, val_fraction=fraction, on_bad_line=options.on_bad_line)
    else:
        raise RegardError(f"{address}: the recipe {recipe} is for other data")
    if len(issues) == 1 and issues[0].where == address and not any(astuple(summary)[:2]):
        raise RegardError(issues[0].what)
    return issues, summary, suspects


def fix_address(
    address: str, out: str | Path, *, recipe: str | None = None, settings: Sequence[str] = ()
) -> "tuple[Repairs, str]":
    """Writes mended annotations into a new folder, as `regard.data.fix_data` does; what changed, and the new address.

    recipe, settings: as `check_address` takes them.
    """
    from regard.api.training import data_section
    from regard.data import fix_data
    from regard.recipes import DetectionDataSection
    from regard.tasks import annotations_of

    options = data_section(address, recipe, settings)
    annotations = annotations_of(options) if isinstance(options, DetectionDataSection) else None
    return fix_data(address, Path(out), annotations=annotations)


def _num_queries(address: str, recipe: str | None, settings: Sequence[str]) -> int:
    from regard.recipes import DetectionRecipe, load_recipe

    if recipe is not None:
        resolved = load_recipe(recipe, settings, address=address)
        return resolved.model.config(num_classes=1).num_queries if isinstance(resolved, DetectionRecipe) else 100
    stated = [text.removeprefix(QUERIES) for text in settings if text.startswith(QUERIES)]
    if stated and not (stated[-1].isdecimal() and 0 < int(stated[-1]) < 10**6):
        raise RegardError(f"--set {QUERIES}{stated[-1]}: must be a whole number above 0")
    return int(stated[-1]) if stated else 100
