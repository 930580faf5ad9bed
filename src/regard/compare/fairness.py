"""What makes a comparison fair, and whether it holds here: the check list of the page, and what it has to say."""

import os
from collections.abc import Sequence

from regard.compare.aliases import Alias
from regard.compare.contender import Contender
from regard.compare.going_on import GoingOn
from regard.compare.plan import Plan
from regard.compare.schema import FairnessPart
from regard.compare.wording import counted
from regard.files import printable


def fairness_of(going: GoingOn) -> list[FairnessPart]:
    plan = going.plan
    train = plan.recipe_of_all().train
    own = [one.name for one in plan.contenders if one.runs]
    labels = [name for name in plan.names if Alias.of(name).labels]
    begun = weights_of(plan)
    looked = train.evaluate_every is not None or train.evaluate_every_steps is not None
    looked = looked and not plan.data["n_val"]  # else it is validation that is looked at
    why = contended(going)
    return [
        FairnessPart(
            what="The same images, order and augmentation for all contenders of a seed",
            holds=not own and not labels,
            note=f"runs of one's own: {', '.join(own)}"
            if own
            else f"changed labels: {', '.join(labels)}"
            if labels
            else "",
        ),
        FairnessPart(
            what="The test part is read once for each training, and decides nothing",
            holds=not looked,
            note="the recipe asks for evaluations along the way; nothing follows from them" if looked else "",
        ),
        FairnessPart(
            what="The same budget for all, of steps alone: compiling, evaluating and saving are off the clock",
            holds=not why and not own,
            note=why,
        ),
        FairnessPart(
            what="All begin from the same weights, or from none",
            holds=len(set(begun.values())) < 2,
            note="" if len(set(begun.values())) < 2 else began_from_others(plan),
        ),
        FairnessPart(what="Final weights, not those of the best evaluation", holds=True),
        FairnessPart(
            what="Settled before the first training: contenders, recipes, seeds, alpha, margin, order",
            holds=not plan.amended,
            note="; ".join(plan.amended),
        ),
    ]


def weights_of(plan: Plan) -> dict[str, str]:
    """What each contender that is trained begins from, as it was named; "" is from nothing."""
    trained = [one for one in plan.contenders if not one.runs]
    return {one.name: one.weights or str(one.recipe["model"].get("weights", "")) for one in trained}


def began_from_others(plan: Plan) -> str:
    """Which contenders began from which weights, and that what these took is in no budget; "" where none was named."""
    if not any(one.weights for one in plan.contenders):
        return ""
    said = []
    for name, weights in weights_of(plan).items():
        minutes = plan.entry(name).weights_minutes
        took = "" if minutes is None else f" (a run of {counted(float(f'{minutes:.2g}'), 'minute')})"
        said += [f"{name} began from {printable(weights)}{took}"] if weights else []
    return f"{'; '.join(said)}; what these weights took is in no budget"


def contended(going: GoingOn) -> str:
    """Why budgets in minutes say nothing here; "" where they do, or are none."""
    if "minutes" not in going.plan.budget:
        return ""
    used = max((cell.facts.get("jobs", 1) * cell.facts.get("threads", 1) for cell in going.cells.values()), default=0)
    cores = os.cpu_count() or 1
    return f"time budgets were contended: {used} threads on {cores} cores" if used > cores else ""


def notes_of(going: GoingOn, contenders: Sequence[Contender]) -> list[str]:
    notes = []
    for one in contenders:
        seeds = [cell for (name, _), cell in going.cells.items() if name == one.name and cell.status == "diverged"]
        if seeds and one.runs:
            notes.append(
                f"Of {one.name}, {len(seeds)} of {len(seeds) + len(one.runs)} trainings diverged: its figures are of "
                "the others alone, and flatter it."
            )
    if began := began_from_others(going.plan):
        notes.append(f"{began}.")
    if going.plan.seeds == 1:
        notes.append("One seed: there is no verdict on mixers.")
    return notes
