"""Training by name: one run, or a comparison of mixers; each leaves what the command of the same name leaves."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from regard.api.names import device_named
from regard.api.runs import load
from regard.errors import RegardError, unknown

if TYPE_CHECKING:
    from regard.compare import Contender
    from regard.recipes import DataSection, Recipe
    from regard.tasks import Predictor
    from regard.training import Run

# What is compared on each sort of data, unless a recipe is named.
RECIPES = {
    "images": "vit-digits",
    "images with boxes": "detr-digit-scenes",
    "pairs of texts": "seq2seq-numbers",
    "text": "next-token",
}
# What each sort of data is for.
TASKS = {
    "images": "classification",
    "images with boxes": "detection",
    "pairs of texts": "seq2seq",
    "text": "next-token",
}


def train(
    recipe: str | Path,
    data: str | Path | Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    **settings: Any,
) -> "Predictor":
    """Trains a recipe, and returns the predictor of its run: `regard.train("vit-digits", epochs=3)`.

    recipe: a shipped one (`regard recipes`) or a TOML file. data: an address, such as "folder:PATH". out: the run
    folder to make, runs/RECIPE-N unless given, with weights, metrics and a report.
    settings: keys of the recipe that no other section has (`lr=1e-3`, `epochs=5`, `embed_dim=64`, `seed=1`), sections
    (`train={"lr": 1e-3}`), or `settings={"train.lr": 1e-3}` or ["train.lr=1e-3"], which is `--set` of the command line.
    None takes a value of the recipe out: `max_minutes=None`.
    Raises RegardError for an unknown recipe or key (with the nearest one), a value that is not allowed, data that
    cannot be read, a folder that exists, and a device that is not there.
    """
    resolved, options = _resolved(recipe, data, device, settings)
    run, _ = train_run(str(recipe), resolved, out, command=shlex.join(["regard", "train", str(recipe), *options]))
    return load(run.path, device=device)


def train_run(
    name: str, recipe: "Recipe", out: str | Path | None, *, command: str = "", resume: bool = False
) -> "tuple[Run, dict[str, Any]]":
    """Trains, writes the report, and returns the run and its summary; `resume` goes on with the run in `out`."""
    from regard.compare import contender, write_report
    from regard.training import Run, default_run_folder, is_main_process
    from regard.training import train as run_training

    run = Run(default_run_folder(Path(name).stem) if out is None else Path(out).expanduser())
    summary = run_training(recipe, run.path, resume=resume)
    if is_main_process():
        found = contender(run.path.name, [run.path], with_cost=False)
        write_report(run.report_file, title=recipe.title or run.path.name, contenders=[found], command=command)
    return run, summary


def compare_mixers(
    mixers: str | Sequence[str] = "all",
    data: str | Path | Mapping[str, Any] | None = None,
    recipe: str | Path | None = None,
    *,
    seeds: int = 1,
    out: str | Path | None = None,
    device: str | torch.device | None = None,
    **settings: Any,
) -> "list[Contender]":
    """Trains the same model with several token mixers, alike; what each reaches and costs, in the order of `mixers`.

    mixers: names of mixers, which take their place in the model, or of presets, which take its place; "all" that can
    serve. recipe: what is trained with each; one that suits the data unless given. seeds: runs a mixer. out: the folder
    to make, runs/compare-N unless given, with a run for each and report.html. `settings` are those of `train`.
    RegardError as there, and for an unknown mixer, one named twice, and one that the recipe cannot train.
    """
    address = data.get("address") if isinstance(data, Mapping) else data
    name = str(recipe) if recipe is not None else recipe_for(None if address is None else str(address))
    resolved, options = _resolved(name, data, device, settings)
    names = mixers.split(",") if isinstance(mixers, str) and mixers != "all" else mixers
    return Comparison(resolved, names, seeds, out).run(name, options)


class Comparison:
    """A comparison that is about to run: who takes part is known, and who is left out and why."""

    def __init__(self, recipe: "Recipe", mixers: str | Sequence[str], seeds: int, out: str | Path | None) -> None:
        from regard.compare import all_candidates, left_out_message
        from regard.training import default_run_folder

        left_out: dict[str, str] = {}
        if mixers == "all":
            self.names, left_out = all_candidates(recipe)
        else:
            self.names = list(mixers)
        self.recipe, self.seeds, self.left_out = recipe, seeds, left_out_message(left_out)
        self.folder = default_run_folder("compare") if out is None else Path(out).expanduser()
        self.report_file = self.folder / "report.html"
        self.write_report: Callable[..., None] = lambda **_: None
        """Writes the report again, with what it is given besides; once the comparison has run."""

    def run(
        self, recipe_name: str, options: Sequence[str], *, title: str | None = None, with_dinov2: bool = False
    ) -> "list[Contender]":
        """Trains all, and writes the report; `with_dinov2`: a photograph as DINOv2 sees it, if that is installed.

        recipe_name, options: how the command was called, for the report.
        """
        from regard.compare import compare, dinov2_picture, write_report
        from regard.mixers import MIXERS

        contenders = compare(self.recipe, self.names, self.seeds, self.folder)
        kind = "mixer" if MIXERS.keys() >= set(self.names) else "model"
        command = ["regard", "compare", "--mixers", ",".join(self.names), "--recipe", recipe_name]
        self.write_report = partial(
            write_report,
            self.report_file,
            title=title or f"Which {'token mixer' if kind == 'mixer' else kind}?",
            contenders=contenders,
            command=shlex.join([*command, "--seeds", str(self.seeds), *options]),
            notes=[self.left_out] if self.left_out else [],
            picture=dinov2_picture() if with_dinov2 else None,
        )
        self.write_report()
        return contenders


def recipe_for(data: str | None) -> str:
    """The shipped recipe for the sort of data behind an address."""
    from regard.data import SORTS, parse_address

    if data is None:
        return RECIPES["images"]
    kind = parse_address(data).kind
    return next((RECIPES[sort] for sort, kinds in SORTS.items() if kind in kinds and sort in RECIPES), "vit-digits")


def data_section(address: str | None, recipe: str | Path | None = None, settings: Sequence[str] = ()) -> "DataSection":
    """How data are opened: as a recipe says, or by the defaults of the address's sort, with `KEY=VALUE` settings.

    address: of the data; a recipe's own unless given. Without a recipe the settings are of the data alone
    ("data.val_fraction=0.1"). RegardError for an unknown recipe, address or key, and a value that is not allowed.
    """
    from regard.data import SORTS, parse_address
    from regard.recipes import data_section, load_recipe, parse_settings

    if recipe is not None:
        return load_recipe(str(recipe), settings, address=address).data
    overrides = parse_settings(settings, address=address)
    if "data.address" not in overrides:
        raise RegardError("name the data: an address, such as folder:PATH, or a recipe")
    kind = parse_address(str(overrides["data.address"])).kind
    return data_section(next(TASKS[sort] for sort, kinds in SORTS.items() if kind in kinds), overrides)


def _resolved(
    recipe: str | Path, data: str | Path | Mapping[str, Any] | None, device: Any, settings: Mapping[str, Any]
) -> "tuple[Recipe, list[str]]":
    """A recipe with a function's arguments in it, and these arguments as options of the command line."""
    from regard.recipes import load_recipe, takes_none

    overrides: dict[str, Any] = {} if device is None else {"train.device": str(device_named(device))}
    given = settings.get("settings", ())
    texts = [given] if isinstance(given, str) else [] if isinstance(given, Mapping) else list(given)
    if isinstance(given, Mapping):
        overrides |= _flat(given)
    if isinstance(data, Mapping):
        overrides |= _flat(data, "data.")
    plain = load_recipe(str(recipe))
    for name, value in settings.items():
        if name != "settings":
            overrides |= _placed(plain, name, value)
    address = None if data is None or isinstance(data, Mapping) else str(data)
    for key in [key for key, value in overrides.items() if value is None and takes_none(key)]:
        raise RegardError(f"{key}: None would take the recipe's value out, and 'none' is a value here; leave it out")
    chosen = [*texts, *(f"{key}={_toml(value)}" for key, value in overrides.items())]
    options = ([] if address is None else ["--data", address]) + [word for text in chosen for word in ("--set", text)]
    try:
        return load_recipe(str(recipe), chosen, address=address), options
    except RegardError as error:  # which speaks of the command line's --set
        raise RegardError(str(error).replace("--set: ", f"{recipe}: ", 1)) from None


def _placed(recipe: "Recipe", name: str, value: Any) -> dict[str, Any]:
    """A keyword under its dotted key; RegardError for one that is in no section, or in several."""
    from regard.recipes import recipe_keys

    places = recipe_keys(recipe)
    if isinstance(value, Mapping) and any(key.startswith(f"{name}.") for key in places):
        return _flat(value, f"{name}.")
    found = [key for key in places if key == name] or [key for key in places if key.rpartition(".")[2] == name]
    if len(found) > 1:
        choices = " or ".join(f"{section}={{{name!r}: ...}}" for section in (key.partition(".")[0] for key in found))
        raise RegardError(f"{name}: is a key of several sections; give {choices}")
    if not found:
        near = unknown("setting", name, [key.rpartition(".")[2] for key in places])
        raise near
    return {found[0]: value}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables under dotted keys: {"train": {"lr": 1}} -> {"train.lr": 1}."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and not prefix:
            found |= _flat(value, f"{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _toml(value: Any) -> str:
    """A value as the right side of `KEY=VALUE`. RegardError for one that TOML does not have."""
    import json

    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        return json.dumps(str(value), ensure_ascii=False)
    raise RegardError(f"{repr(value)[:100]}: a setting is a number, a text, true or false, or a list or table of them")
