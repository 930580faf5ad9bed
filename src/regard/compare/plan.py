"""The plan of a comparison, `plan.json`: settled and hashed before the first training.

What the statistics promise holds for what was settled before results were seen: contenders, recipes, the numbers of
seeds after which there are verdicts, alpha, margin, and the order of trainings. So a plan that was changed is an error
unless the change is said (`--amend`), and the report then says so, too. How long to go on (`until`) is no part of it:
whenever a comparison stops, its verdicts hold.
"""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from regard.compare.aliases import Alias
from regard.data import seed_for
from regard.errors import RegardError
from regard.files import json_text, write_json
from regard.reading import read_json
from regard.recipes import Recipe, parse_recipe

FILE = "plan.json"
VERSION = 1


@dataclass(frozen=True)
class Entry:
    """A contender of a plan."""

    name: str
    recipe: dict[str, Any]
    """As resolved, with the seed of its first run."""
    runs: list[str] = field(default_factory=list)
    """Finished runs of one's own, one for each seed, in the place of trainings."""
    parameters: int = 0
    """0: not known."""
    cannot_run: str = ""
    """Why it cannot be trained, as was found before the first training."""
    weights: str = ""
    """What it begins from, as it was named; the recipe has its place and its hash."""
    weights_minutes: float | None = None
    """How long the run was trained that these weights are of, where its summary says it."""


@dataclass(frozen=True)
class Plan:
    """What is settled. `until`, `amended` and `command` may change; all else is covered by the hash."""

    contenders: list[Entry]
    recipe_name: str
    task: str
    seed: int
    """Of the first run; further runs have the seeds after it."""
    seeds: int | None
    """Runs of each contender; None: as many as the answer takes."""
    looks: list[tuple[int, float]]
    """(runs of each contender, alpha of the verdicts made after them)."""
    alpha: float
    margin: float
    """In points."""
    cost: str
    budget: str
    threads: int
    """Of each training."""
    order: list[tuple[str, int]]
    """(contender, seed) of all runs, in the order in which they are trained."""
    data: dict[str, Any]
    """address, fingerprint, n_train, n_val, n_test."""
    tune: str | None = None
    folds: int | None = None
    until: str = "answer"
    amended: list[str] = field(default_factory=list)
    command: str = ""
    title: str = ""

    def settled(self) -> dict[str, Any]:
        """What the hash covers."""
        values = asdict(self)
        for key in ("until", "amended", "command", "title"):
            del values[key]
        for one in values["contenders"]:  # of weights the recipe has the hash
            del one["weights"], one["weights_minutes"]
        return values

    @property
    def hash(self) -> str:
        text = json.dumps(json.loads(json_text(self.settled())), sort_keys=True)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.contenders]

    @property
    def max_seeds(self) -> int:
        return self.looks[-1][0]

    def entry(self, name: str) -> Entry:
        for one in self.contenders:
            if one.name == name:
                return one
        raise RegardError(f"{name}: is no contender of this comparison; those are {', '.join(self.names)}")

    def recipe(self, name: str, seed: int) -> Recipe:
        """The recipe of one cell."""
        one = self.entry(name)
        return parse_recipe({**one.recipe, "seed": one.recipe.get("seed", 0) + seed - self.seed}, of_run=True)

    def recipe_of_all(self) -> Recipe:
        """That of the first contender, for what all have in common: the task and the data."""
        aliases = [(one, Alias.of(one.name)) for one in self.contenders]
        plain = min(aliases, key=lambda pair: (bool(pair[1].labels), bool(pair[1].weights)))[0]
        values = json.loads(json.dumps(plain.recipe))
        values["data"].pop("shuffled_labels", None)
        return parse_recipe(values, of_run=True)

    def cell_id(self, name: str, seed: int) -> str:
        """What a cell's results follow from: those of another plan with the same recipe are the same."""
        one = self.entry(name)
        source = one.runs[seed - self.seed] if one.runs else self.recipe(name, seed).to_dict()
        values = {"name": name, "recipe": source, "threads": self.threads, "data": self.data["fingerprint"]}
        return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=8).hexdigest()

    def write(self, folder: Path) -> None:
        values = {"version": VERSION, "hash": self.hash, **asdict(self)}
        write_json(folder / FILE, values)

    @classmethod
    def read(cls, folder: Path, *, amend: bool = False) -> "Plan":
        """RegardError for a plan that is damaged, of a later version, or was changed, unless `amend` takes it so."""
        file = folder / FILE
        try:
            values = dict(read_json(file))
            version, told = values.pop("version"), values.pop("hash")
            if version != VERSION:
                raise RegardError(f"{file}: is of another version ({version}; this one writes {VERSION})")
            plan = cls(**{**values, "contenders": [Entry(**one) for one in values["contenders"]]})
            plan = replace(
                plan, looks=[(int(a), float(b)) for a, b in plan.looks], order=[(str(a), int(b)) for a, b in plan.order]
            )
            plan.recipe_of_all()
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            if isinstance(error, RegardError) and "version" in str(error):
                raise
            raise RegardError(f"{file}: is damaged: {str(error).splitlines()[0]}; begin a new comparison") from None
        if plan.hash != told:
            if not amend:
                raise RegardError(
                    f"{file}: was changed after the comparison began; put it back, or say it with --amend, and the "
                    "report will say so"
                )
            plan = replace(plan, amended=[*plan.amended, "plan.json was edited after the first training"])
            plan.write(folder)
        return plan


def order_of(names: Sequence[str], runs: dict[str, int], seed: int, rounds: int) -> list[tuple[str, int]]:
    """(contender, seed) of all cells: round by round, and in each in an order drawn from the seed and the round.

    So whenever a comparison stops, contenders have as many runs, but for one, and what drifts meets all alike.
    runs: of contenders that have finished runs instead, how many.
    """
    order = []
    for number in range(rounds):
        taking_part = [name for name in names if number < runs.get(name, rounds)]
        random.Random(seed_for(seed, number)).shuffle(taking_part)
        order += [(name, seed + number) for name in taking_part]
    return order


def differences(old: Plan, new: Plan) -> list[str]:
    """What is another in the new plan, a sentence for each key: "margin: 1.0 -> 2.0"."""
    found = []
    if old.names != new.names:
        found.append(f"contenders: {', '.join(old.names)} -> {', '.join(new.names)}")
    for key in ("margin", "alpha", "cost", "budget", "threads", "seed"):
        before, now = getattr(old, key), getattr(new, key)
        if before != now:
            found.append(f"{key}: {before} -> {now}")
    if old.looks != new.looks:
        found.append(f"seeds: looks after {_listed(old)} -> {_listed(new)}")
    both = [name for name in old.names if name in new.names]
    changed = [name for name in both if old.entry(name).recipe != new.entry(name).recipe]
    if changed and "budget" not in " ".join(found):
        found.append(f"recipe of {', '.join(changed)}: {_first_change(old, new, changed[0])}")
    return found


def is_other_comparison(old: Plan, new: Plan) -> str:
    """In what the new plan is no change of the old one, but another comparison; "" where it is none."""
    if old.task != new.task:
        return f"the task is {old.task} there, and {new.task} here"
    if old.data["fingerprint"] != new.data["fingerprint"]:
        same = old.data["address"] == new.data["address"]
        here = "other samples of it, or in other parts" if same else new.data["address"]
        return f"its data are {old.data['address']}, and here {here}"
    if not set(old.names) & set(new.names):
        return f"it compares {', '.join(old.names)}, and here {', '.join(new.names)}"
    return ""


def _listed(plan: Plan) -> str:
    return ", ".join(str(runs) for runs, _ in plan.looks)


def _first_change(old: Plan, new: Plan, name: str) -> str:
    before, now = _flat(old.entry(name).recipe), _flat(new.entry(name).recipe)
    key = next(key for key in {**before, **now} if before.get(key) != now.get(key))
    return f"{key} {before.get(key)} -> {now.get(key)}"


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
