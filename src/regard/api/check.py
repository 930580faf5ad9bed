"""Data are checked and mended as a recipe, or the options of a training, open them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.errors import RegardError
from regard.files import expanded

if TYPE_CHECKING:
    from regard.data import (
        DetectionData,
        DetectionSummary,
        Found,
        ImageClasses,
        Issue,
        PairSummary,
        Repairs,
        Summary,
        Suspect,
        TextSummary,
    )
    from regard.tasks import Facts

QUERIES = "model.num_queries="
# As which recipes see the data, unless one is named.
SEEN_BY = {"images": ("finetune-photos-all",), "images with boxes": ("detr-small", "detr-photos")}


@dataclass(frozen=True)
class Examination:
    """All that `regard data check` says of a data set."""

    address: str
    issues: "list[Issue]"
    """Errors and warnings."""
    summary: "DetectionSummary | PairSummary | Summary | TextSummary"
    suspects: "Sequence[Suspect]" = ()
    data: "ImageClasses | DetectionData | None" = None
    """Of images alone, as all that follows."""
    facts: "dict[str, Facts] | None" = None
    """By the recipe that sees the data so."""
    alike: "Found | None" = None

    @property
    def advice(self) -> "list[Issue]":
        """Of all recipes; what suits each of them is said once."""
        several = len(self.facts or {}) > 1
        found: dict[str, Issue] = {}
        for name, facts in (self.facts or {}).items():
            for issue in facts.advice:
                found.setdefault(issue.what, issue if not several else _of_recipe(issue, name))
        return list(found.values())

    @property
    def errors(self) -> int:
        return sum(issue.severity == "error" for issue in self.issues)

    def to_dict(self) -> dict[str, Any]:
        """For JSON. Names are as in messages; `near_doubles.pairs` are (image, the one that it is nearly the same as),
        those between the parts first.
        """
        found: dict[str, Any] = {
            "address": self.address,
            "summary": str(self.summary),
            "errors": self.errors,
            "warnings": len(self.issues) - self.errors,
            "counts": {key: value for key, value in vars(self.summary).items() if isinstance(value, int)},
            "issues": [issue.to_dict() for issue in self.issues],
            "advice": [issue.to_dict() for issue in self.advice],
        }
        if self.facts:
            found |= _facts_to_dict(self.facts)
        if self.alike is not None:
            found |= _alike_to_dict(self.alike, self.name)
        return found

    def short(self, text: str) -> str:
        """A text in which names begin below the place of the data."""
        from regard.data import place_of

        root = None if self.data is None else place_of(self.address)
        # In an address the place follows a colon, and stays.
        return text if root is None else re.sub(rf"(?<![:\w]){re.escape(str(root))}/(?=\S)", "", text)

    def name(self, place: tuple[str, int]) -> str:
        """Of the image at (part, index)."""
        assert self.data is not None
        return (self.data.train if place[0] == "train" else self.data.val).name(place[1])


def _of_recipe(issue: "Issue", name: str) -> "Issue":
    from dataclasses import replace

    return replace(issue, where=name) if "data.shortest" in issue.what else issue


def _facts_to_dict(facts: "dict[str, Facts]") -> dict[str, Any]:
    first = next(iter(facts.values()))
    found: dict[str, Any] = {
        "task": first.task,
        "own_split": first.has_val,
        "class_counts": first.class_counts,
        "imbalance": round(first.imbalance, 2),
        "image_sizes": [list(size) for size in first.image_sizes],
    }
    if first.task == "detection":
        found["unlabelled"] = {"count": len(first.unlabelled), "names": list(first.unlabelled[:3])}
        found["most_objects"] = first.most_objects
        found["suggested_queries"] = first.suggested_queries
        found["object_sizes"] = {
            name: {
                "shortest": one.seen_size[0],
                "longest": one.seen_size[1],
                "quartiles": [round(side, 1) for side in one.object_sides],
                "suggested": None
                if one.suggested_size is None
                else dict(zip(("shortest", "longest"), one.suggested_size, strict=True)),
            }
            for name, one in facts.items()
        }
    return found


def _alike_to_dict(alike: "Found", name: Callable[[tuple[str, int]], str]) -> dict[str, Any]:
    pairs = [*alike.between, *alike.within]
    parts = [pair.first[0] for pair in alike.within]
    return {
        "near_doubles": {
            "between_parts": len(alike.between),
            "within_train": parts.count("train"),
            "within_val": parts.count("val"),
            "pairs": [[name(pair.first), name(pair.second)] for pair in pairs],
        },
        "placeholders": {
            "count": sum(map(len, alike.placeholders)),
            "names": [[name(place) for place in same] for same in alike.placeholders],
        },
    }


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
    found = examine(address, recipe=recipe, settings=settings, num_queries=num_queries, root=root)
    return found.issues, found.summary, found.suspects


def examine(
    address: str,
    *,
    recipe: str | None = None,
    settings: Sequence[str] = (),
    num_queries: int | None = None,
    root: Path | None = None,
    told: Callable[[int, int], object] | None = None,
) -> Examination:
    """The same, with what the data are like, near-doubles and placeholders, and advice.

    told: is called with the number of images that were read, and that of all. RegardError as there.
    """
    from regard.api.training import data_section
    from regard.data import (
        SORTS,
        Seen,
        address_of,
        check_alike,
        check_detection,
        check_images,
        check_pairs,
        check_text,
        parse_address,
    )
    from regard.recipes import DetectionDataSection
    from regard.recipes.sections import ImageDataSection, TextDataSection
    from regard.tasks import annotations_of, csv_options

    address = address_of(address, unlabelled=recipe is None)
    kind = parse_address(address).kind
    options = data_section(address, recipe, [text for text in settings if recipe or not text.startswith(QUERIES)])
    seed = options.split_seed
    fraction = options.val_fraction
    if recipe is None and "val_fraction" not in options.model_fields_set and not isinstance(options, ImageDataSection):
        fraction = 0.1  # of texts, as `open_pairs` and `open_text` hold out
    issues: list[Issue]
    summary: DetectionSummary | PairSummary | Summary | TextSummary
    suspects: Sequence[Suspect] = ()
    opened: list[ImageClasses | DetectionData] = []
    seen = Seen()

    def look(data: "ImageClasses | DetectionData") -> Callable[[str, int, Any], None]:
        opened.append(data)
        total = len(data.train) + (0 if data.val is data.train else len(data.val))
        if told is not None:
            seen.told = partial(_told, told, total)
        return seen.see

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
            leave_out=options.leave_out,
            look=look,
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
            leave_out=options.leave_out,
            look=look,
            on_bad_annotation=getattr(options, "on_bad_annotation", "stop"),
            csv=csv_options(options),
            unlabelled=recipe is None,
        )
    elif isinstance(options, TextDataSection) and kind in SORTS["pairs of texts"]:
        issues, summary = check_pairs(address, val_fraction=fraction, split_seed=seed, on_bad_line=options.on_bad_line)
    elif isinstance(options, TextDataSection):
        issues, summary = check_text(address, val_fraction=fraction, on_bad_line=options.on_bad_line)
    else:
        raise RegardError(f"{address}: the recipe {recipe} is for other data")
    if len(issues) == 1 and issues[0].where == address and not any(astuple(summary)[:2]):
        raise RegardError(issues[0].what)
    if not opened:
        return Examination(address, issues, summary, suspects)
    (data,) = opened
    alike = check_alike(data, seen)
    if alike.placeholders:  # which are the same images
        issues = [issue for issue in issues if "another class" not in issue.what]
    issues = sorted([*issues, *alike.issues], key=lambda issue: issue.severity == "warning")
    return Examination(address, issues, summary, suspects, data, _seen_by(data, recipe, settings), alike)


def _told(told: Callable[[int, int], object], total: int, count: int) -> None:
    told(count, total)


def _seen_by(data: "ImageClasses | DetectionData", recipe: str | None, settings: Sequence[str]) -> "dict[str, Facts]":
    from regard.data import DetectionData
    from regard.recipes import ClassificationRecipe, DetectionRecipe, load_recipe
    from regard.tasks import quick_facts

    found = {}
    names = SEEN_BY["images with boxes" if isinstance(data, DetectionData) else "images"]
    for name in names if recipe is None else (recipe,):
        resolved = load_recipe(name, settings if recipe is not None else (), address=data.address)
        assert isinstance(resolved, ClassificationRecipe | DetectionRecipe)
        found[Path(name).stem] = quick_facts(data, resolved)
    return found


def write_list(found: Examination, file: Path) -> int:
    """Writes the images that are better left out, for `data.leave_out`; how many they are."""
    from regard.data import place_of, write_leave_out

    if found.alike is None:
        raise RegardError(f"{found.address}: no images to leave out; a list of them is for data of images")
    write_leave_out(expanded(file), found.alike.leave_out, place_of(found.address), found.alike.doubled)
    return len(found.alike.leave_out)


def fix_address(
    address: str, out: str | Path, *, recipe: str | None = None, settings: Sequence[str] = ()
) -> "tuple[Repairs, str]":
    """Writes mended annotations into a new folder, as `regard.data.fix_data` does; what changed, and the new address.

    recipe, settings: as `check_address` takes them.
    """
    from regard.api.training import data_section
    from regard.data import address_of, fix_data
    from regard.recipes import DetectionDataSection
    from regard.tasks import annotations_of

    address = address_of(address)
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
