"""What a run began with, its recipe and its data: it is resumed with the same, and evaluated on what it held out."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from regard.data import Fingerprint, Issue, differences
from regard.errors import RegardError, first_of, one_line
from regard.files import printable, write_json
from regard.recipes import Recipe, dotted, parse_recipe, parse_settings
from regard.tasks import Task
from regard.training.progress import Bar
from regard.training.run import Run
from regard.training.state import DAMAGED, ORIGIN, named_latest, newest_whole
from regard.training.whole_json import read_table, with_checksum

# What may change when a run is resumed: with the new value the training so far would have been the same, as long as
# the data are. (A schedule follows its budget, so a longer one changes the rates to come.)
CHANGEABLE = (
    *("train.epochs", "train.max_steps", "train.max_minutes"),
    *("train.evaluate_every", "train.evaluate_every_steps", "train.save_every_steps"),
    *("train.device", "train.find_nonfinite", "train.gradient_checkpointing"),
    *("data.num_workers", "data.root", "data.cache", "data.strict", "data.max_megapixels"),
    *("data.on_bad_image", "data.on_bad_annotation", "features.folder", "features.max_gb"),
)
# Where the data are: `--data` and these may change while the data stay the same.
PLACES = (
    *("data.address", "data.train_annotations", "data.train_images", "data.val_annotations", "data.val_images"),
    "data.leave_out",
    "data.image_folder",
)
# What trains nothing. The device is that of the moment.
_UNTOLD = ("title", "otherwise", "train.device")

Changes = dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Origin:
    recipe: Recipe
    data: Fingerprint
    run_id: str | None = None

    def write(self, file: Path) -> None:
        values = {"run": self.run_id, "recipe": self.recipe.to_dict(), "data": self.data.to_dict()}
        write_json(file, with_checksum(values))

    @classmethod
    def read(cls, file: Path, run_id: str | None) -> "Origin":
        """RegardError for a file that is damaged, or of another run."""
        values = read_table(file)
        if values.get("run") != run_id:
            raise RegardError(f"{file}: is of another run")
        try:
            recipe = parse_recipe(values["recipe"], of_run=True)
            return cls(recipe, Fingerprint.from_dict(values["data"]), run_id)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else one_line(error)
            raise RegardError(f"{file}: is damaged: {told}") from None

    def changes(self, recipe: Recipe) -> Changes:
        """The keys that have another value in `recipe`: the old and the new one."""
        old, new = dotted(self.recipe), dotted(recipe)
        keys = [key for key in {**old, **new} if key not in _UNTOLD]
        return {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}

    def require_same_recipe(self, recipe: Recipe, state: Path) -> Changes:
        """What differs and may. RegardError that lists both sides of what may not."""
        run = state.parents[1]
        changes = self.changes(recipe)
        refused = {key: sides for key, sides in changes.items() if key not in (*CHANGEABLE, *PLACES)}
        if refused:
            where = f"{state}: {DAMAGED}" if any(key.startswith("model.") for key in refused) else run
            raise RegardError(
                f"{where}: was trained by another recipe so far (then -> now): {listed(refused)}; put recipe.toml "
                f"back, or begin a new run; --resume can change {', '.join(CHANGEABLE)} by --set, and where the data "
                "are by --data"
            )
        return changes

    def require_same_data(self, data: Fingerprint, address: str, run: Path) -> None:
        """RegardError that lists both sides unless the data are those that the run was trained on so far."""
        found = differences(self.data, data)
        if found:
            raise RegardError(
                f"{run}: the data of {printable(address)} are not those that it was trained on so far (then -> now): "
                f"{'; '.join(found)}; bring those back, name them with --data if they were moved, or begin a new run"
            )


def hand_over(run: Run, recipe: Recipe) -> None:
    """From now on a run that stands at a state goes on with another recipe, which its training so far does not rule.

    For the winner of a race: it was trained on fewer images and views.
    """
    state = newest_whole(run.path / "state", run.id())
    assert state is not None
    origin = Origin.read(state / ORIGIN, run.id())
    Origin(recipe, origin.data, origin.run_id).write(state / ORIGIN)
    run.write_recipe(recipe)


def origin_of(run: Run) -> Origin | None:
    """What a run began with, as its newest state says; None for an older run, and for one without a state."""
    folder = run.path / "state"
    latest = named_latest(folder)
    states = [latest] if latest is not None else sorted(folder.glob("step-*"), key=lambda path: path.stat().st_mtime)
    files = [state / ORIGIN for state in states if (state / ORIGIN).exists()]
    return Origin.read(files[-1], run.id()) if files else None


def resumed_recipe(run: Run, settings: Sequence[str] = (), address: str | None = None) -> Recipe:
    """The recipe that a run goes on with: its own, with settings that change nothing so far and the data's new place.

    RegardError for other settings, and for a recipe.toml that was edited: both sides are listed.
    """
    overrides = parse_settings(settings, address=address)
    for key in overrides:
        if key not in (*CHANGEABLE, *PLACES):
            raise RegardError(
                f"--set {key}: the training so far would have been another one; "
                f"--resume can change {', '.join(CHANGEABLE)}, and where the data are by --data"
            )
    state = newest_whole(run.path / "state", run.id())
    recipe = run.recipe(overrides)
    if state is not None and (state / ORIGIN).exists():
        origin = Origin.read(state / ORIGIN, run.id())
        changes = origin.require_same_recipe(recipe, state)
        edited = {key: sides for key, sides in changes.items() if key not in overrides}
        if edited:
            raise RegardError(
                f"{run.recipe_file}: was edited (then -> now): {listed(edited)}; put it back, and change it by "
                f"{' '.join(_as_option(key, new) for key, (_, new) in edited.items())}"
            )
    return recipe


def _as_option(key: str, value: Any) -> str:
    return shlex.join(["--data", value] if key == "data.address" else ["--set", f"{key}={_shown(value)}"])


def require_sound(task: Task, bar: Bar) -> Sequence[Issue]:
    """RegardError for data that would spoil the training; warnings are shown."""
    issues = task.check()
    errors = [f"{issue.where}: {issue.sentence}" for issue in issues if issue.severity == "error"]
    if errors:
        raise RegardError(first_of(errors, "more: see `regard data check`"))
    for issue in issues:
        bar.tell(f"warning: {issue.where}: {issue.what}")
    return issues


def listed(changes: Changes) -> str:
    """ "train.lr 0.001 -> 0.01, seed 0 -> 1"."""
    return ", ".join(f"{key} {_shown(old)} -> {_shown(new)}" for key, (old, new) in changes.items())


def _shown(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    return printable(text if len(text) <= 80 else f"{text[:80]}...")
