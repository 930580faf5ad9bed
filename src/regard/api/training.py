"""Training by name: one run, or a comparison of mixers; each leaves what the command of the same name leaves."""

import logging
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from regard.api.names import device_named
from regard.api.runs import load
from regard.errors import RegardError, first_of, unknown
from regard.files import expanded

if TYPE_CHECKING:
    from regard.compare import Contender, Failure, Report, SecondPart
    from regard.recipes import DataSection, Recipe
    from regard.tasks import Predictor
    from regard.training import Run

_log = logging.getLogger("regard")

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
    recipe: str | Path | None = None,
    data: str | Path | Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    *,
    minutes: float | int | None = None,
    device: str | torch.device | None = None,
    **settings: Any,
) -> "Predictor":
    """Trains a recipe, and returns the predictor of its run: `regard.train("vit-digits", epochs=3)`.

    recipe: a shipped one (`regard recipes`) or a TOML file; without one, `choose_recipe` finds what fits the data:
    `regard.train(data="my-photos")`. data: an address, such as "folder:PATH", or a bare path. out: the run folder to
    make, runs/RECIPE-N unless given, with weights, metrics and a report. minutes: wall time from this call to the
    report; as the recipe says unless given, and ten for a chosen one.
    settings: keys of the recipe that no other section has (`lr=1e-3`, `epochs=5`, `embed_dim=64`, `seed=1`), sections
    (`train={"lr": 1e-3}`), or `settings={"train.lr": 1e-3}` or ["train.lr=1e-3"], which is `--set` of the command line.
    None takes a value of the recipe out: `max_minutes=None`.
    Raises RegardError for an unknown recipe or key (with the nearest one), a value that is not allowed, data that
    cannot be read, a folder that exists, and a device that is not there.
    """
    from regard.api.chosen import choose_recipe, train_chosen, within_minutes

    began, limit = time.monotonic(), [] if minutes is None else ["--minutes", f"{minutes:g}"]
    if recipe is None:
        address = data.get("address") if isinstance(data, Mapping) else data
        if address is None:
            raise RegardError("train: name a recipe, or data for which one is chosen")
        choice = choose_recipe(address, 10.0 if minutes is None else minutes)
        given = {key: value for key, value in data.items() if key != "address"} if isinstance(data, Mapping) else None
        _, options, chosen = _resolved(choice.recipe, given, device, settings)
        for line in choice.lines():
            _log.warning("%s", line)
        command = shlex.join(["regard", "train", "--data", choice.address, *options, *limit])
        run, _ = train_chosen(choice, out, chosen, began=began, command=command)
        return load(run.path, device=device)
    resolved, options, chosen = _resolved(recipe, data, device, settings)
    if minutes is not None:
        resolved = within_minutes(resolved, minutes, chosen)
    command = shlex.join(["regard", "train", str(recipe), *options, *limit])
    run, _ = train_run(str(recipe), resolved, out, command=command)
    return load(run.path, device=device)


def train_run(
    name: str,
    recipe: "Recipe",
    out: str | Path | None,
    *,
    command: str = "",
    resume: bool = False,
    tell: Callable[[str], object] = _log.warning,
) -> "tuple[Run, dict[str, Any]]":
    """Trains, writes the report, and returns the run and its summary; `resume` goes on with the run in `out`.

    A report that cannot be made does not fail the training: `tell` gets a line that says why.
    """
    from regard.choose import race_told
    from regard.compare import Report, contender, reason_of
    from regard.training import Run, default_run_folder
    from regard.training import train as run_training

    run = Run(default_run_folder(Path(name).stem) if out is None else expanded(out))

    def report() -> None:
        written = Report(run.report_file, title=recipe.title or run.path.name, command=command, whole=False)
        try:
            found = contender(run.path.name, [run.path], with_cost=False)
            race = race_told(run.path)
            not_shown = [failure.reason for failure in written.write([found], notes=[race] if race else [])]
        except Exception as error:  # of any library that draws, after hours of training
            not_shown = [reason_of(error)]
        for reason in not_shown:
            tell(f"{run.path}: is trained, but its report is not whole: {reason}")

    return run, run_training(recipe, run.path, resume=resume, then=report)


def compare_mixers(
    mixers: str | Sequence[str] = "all",
    data: str | Path | Mapping[str, Any] | None = None,
    recipe: str | Path | None = None,
    *,
    seeds: int = 3,
    out: str | Path | None = None,
    device: str | torch.device | None = None,
    **settings: Any,
) -> "list[Contender]":
    """Trains the same model with several token mixers, alike; what each reaches and costs, in the order of `mixers`.

    mixers: names of mixers, which take their place in the model, or of presets, which take its place; "all" that can
    serve. recipe: what is trained with each; one that suits the data unless given. seeds: runs a mixer. out: the folder
    to make, runs/compare-N unless given, with a run for each and report.html. `settings` are those of `train`.
    A training that fails does not end the others: it is in the report, and among its contender's `failures`.
    RegardError as there, for an unknown mixer, one named twice, one that the recipe cannot train, and where all fail.
    """
    from regard.data import address_of

    address = data.get("address") if isinstance(data, Mapping) else data
    name = str(recipe) if recipe is not None else recipe_for(None if address is None else address_of(str(address)))
    resolved, options, _ = _resolved(name, data, device, settings)
    names = mixers.split(",") if isinstance(mixers, str) and mixers != "all" else mixers
    comparison = Comparison(resolved, names, seeds, out)
    contenders = comparison.run(name, options)
    for failure in comparison.failures:
        if failure.what.endswith("report"):  # a training that failed has been told
            _log.warning("%s: %s", comparison.folder, failure)
    return contenders


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
        self.folder = default_run_folder("compare") if out is None else expanded(out)
        self.report_file = self.folder / "report.html"
        self.contenders: list[Contender] = []
        """Those of which a training has ended, well or not."""
        self.failures: list[Failure] = []
        """What did not end well: trainings, costs, parts of the report."""
        self._report: Report | None = None

    def run(
        self,
        recipe_name: str,
        options: Sequence[str],
        *,
        title: str | None = None,
        with_dinov2: bool = False,
        json_file: Path | None = None,
    ) -> "list[Contender]":
        """Trains all; after each training, and at the end, writes the report, and its figures into `json_file`.

        recipe_name, options: how the command was called, for the report. `with_dinov2`: a photograph as DINOv2 sees it,
        if that is installed. RegardError as `compare`, and where no training ended well.
        """
        from regard.compare import Report, compare, dinov2_picture
        from regard.mixers import MIXERS

        kind = "mixer" if MIXERS.keys() >= set(self.names) else "model"
        command = ["regard", "compare", "--mixers", ",".join(self.names), "--recipe", recipe_name]
        self._report = Report(
            self.report_file,
            title=title or f"Which {'token mixer' if kind == 'mixer' else kind}?",
            command=shlex.join([*command, "--seeds", str(self.seeds), *options]),
            whole=False,
        )

        def write(contenders: "list[Contender]", *, is_over: bool = False) -> None:
            self.contenders = contenders
            self.write_report(is_over=is_over, json_file=json_file)

        contenders = compare(self.recipe, self.names, self.seeds, self.folder, after_each=write)
        if with_dinov2:
            self._report.picture = dinov2_picture()
        write(contenders, is_over=True)
        if not any(contender.runs for contender in contenders):
            raise RegardError(f"{self.folder}: no training ended well: {first_of(self._told(), 'more')}")
        return contenders

    def write_report(
        self, *, second: "SecondPart | None" = None, is_over: bool = True, json_file: Path | None = None
    ) -> None:
        """Writes the report of what has ended; a second part comes at its end. What cannot be written is a failure."""
        from regard.compare import Failure, reason_of, record_of
        from regard.files import write_json

        assert self._report is not None
        self.failures = [failure for contender in self.contenders for failure in contender.failures]
        held, planned = sum(len(one.runs) for one in self.contenders), len(self.names) * self.seeds
        so_far = f"The comparison has not ended: this page holds {held} of {planned} trainings."
        notes = [note for note in ("" if is_over else so_far, self.left_out) if note]
        try:
            if any(contender.runs for contender in self.contenders):
                shown = self._report.write(self.contenders, notes=notes, failures=self.failures, second=second)
                self.failures += shown
            if json_file is not None:
                values = record_of(self.contenders, self.names, self.seeds, self.failures, is_over=is_over)
                json_file.parent.mkdir(parents=True, exist_ok=True)
                write_json(json_file, values)
        except Exception as error:  # hours of training shall not end for a page
            self.failures.append(Failure("report", reason_of(error)))

    def require_no_failure(self) -> None:
        """RegardError that names what failed; the others are in the report."""
        if self.failures:
            raise RegardError(f"{first_of(self._told(), 'more failures')}; the rest is in {self.report_file}")

    def _told(self) -> list[str]:
        return [str(failure) for failure in self.failures]


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
) -> "tuple[Recipe, list[str], list[str]]":
    """A recipe with a function's arguments in it, these arguments as options of the command line, and its settings."""
    from regard.data import address_of
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
    address = None if data is None or isinstance(data, Mapping) else address_of(str(data))
    if "data.address" in overrides:
        overrides["data.address"] = address_of(str(overrides["data.address"]))
    for key in [key for key, value in overrides.items() if value is None and takes_none(key)]:
        raise RegardError(f"{key}: None would take the recipe's value out, and 'none' is a value here; leave it out")
    chosen = [*texts, *(f"{key}={_toml(value)}" for key, value in overrides.items())]
    options = ([] if address is None else ["--data", address]) + [word for text in chosen for word in ("--set", text)]
    try:
        return load_recipe(str(recipe), chosen, address=address), options, chosen
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
