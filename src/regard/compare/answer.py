"""A comparison in its folder -> its record: verdicts, recommendation, costs, provenance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, cast

import numpy as np

from regard.compare.aliases import Alias
from regard.compare.cells import TEST, Cell
from regard.compare.contender import Contender, Cost, Metric
from regard.compare.fairness import contended, fairness_of, notes_of, weights_of
from regard.compare.going_on import GoingOn
from regard.compare.inference import Interval, interval
from regard.compare.needs import Words, needs
from regard.compare.prices import prices_of, sample_of
from regard.compare.provenance import commit
from regard.compare.reading import POINT, Reading
from regard.compare.recommendation import RULE, Price, recommend, states
from regard.compare.schema import (
    SCHEMA,
    CellPart,
    ContenderPart,
    CostName,
    CostPart,
    CurvePart,
    DataPart,
    FlopsPart,
    LatencyPart,
    MeasurementPart,
    MetricPart,
    NeedsPart,
    PairPart,
    PlanPart,
    RatePart,
    RecommendationPart,
    Record,
    SecondsPart,
)
from regard.compare.spread import Spread
from regard.draw.plots import smooth
from regard.mixers import MIXERS
from regard.tasks import TASKS
from regard.training import Run, machine, versions

MATCHED = 1.05
"""Parameters within 5% are said to be matched."""
PRECISIONS = ("ap", "map")
"""Metrics that are means of no ones and zeros, and lie between 0 and 1 all the same."""


def record_of_comparison(going: GoingOn, *, notes: Sequence[str] = (), about: str = "", facts: Any = ()) -> Record:
    """The record at any moment. While the comparison runs, verdicts are those of the looks that are behind."""
    plan, contenders = going.plan, going.contenders()
    task = TASKS[plan.task]
    metric = contenders[0].metric if contenders else Metric(task.main_metric, task.larger_is_better)
    now = going.reading(to_the_end=going.is_final)
    costs = prices_of(plan.cost, contenders, plan.task)
    prices = [costs.get(name) for name in now.names]
    minutes = [_minutes(going, name) for name in now.names]
    unit, words = task.unit, _words(metric, task.unit)
    said, pairs = _said(now, prices, minutes, words, plan.alpha), _pairs(now, minutes, words)
    if why := contended(going):
        said = RecommendationPart(sentence=f"Cannot tell: {why}.", rule=RULE)
        pairs = [pair.model_copy(update={"verdict": "cannot tell", "reason": why, "needs": None}) for pair in pairs]
    state = dict(zip(now.names, states(now.found), strict=True)) if now.found is not None else {}
    kind = _kind(plan.names)
    bare = [name for name in plan.names if Alias.of(name).base in MIXERS]
    fields = ("seed_part", "image_part", "interaction")
    parts = []
    intervals = _intervals(going, metric)
    by_name = {one.name: one for one in contenders}
    begun = weights_of(plan)
    for name in plan.names:
        one, found = by_name.get(name), intervals.get(name)
        parts.append(
            ContenderPart(
                name=name,
                mean=None if one is None or not one.scores else math.fsum(one.scores) / len(one.scores),
                low=None if found is None else found.low,
                high=None if found is None else found.high,
                note="" if found is None else found.reason,
                **{key: None if found is None else getattr(found, key) for key in fields},
                weights=begun.get(name, ""),
                weights_minutes=plan.entry(name).weights_minutes,
                parameters=None if one is None else one.parameters,
                matched=_matched(name, by_name, bare),
                flops=_flops(one),
                cost=_cost(None if one is None else one.cost),
                state=state.get(name, "unknown"),
                dropped=now.dropped.get(name),
            )
        )
    return Record(
        schema=SCHEMA,
        title=plan.title or f"Which {_subject(plan.names)}?",
        task=plan.task,
        kind=kind,
        metric=MetricPart(
            name=metric.name,
            words=metric.words,
            larger_is_better=metric.larger_is_better,
            is_proportion=metric.is_proportion,
            point=POINT,
            about=about,
        ),
        plan=PlanPart(
            hash=plan.hash,
            contenders=plan.names,
            recipe=plan.recipe_of_all().to_dict(),
            recipe_name=plan.recipe_name,
            looks=[runs for runs, _ in plan.looks],
            alpha=plan.alpha,
            margin=plan.margin,
            budget=plan.budget,
            until=plan.until,
            cost=cast(CostName, plan.cost),
            order=plan.order,
            amended=plan.amended,
        ),
        data=DataPart(
            address=plan.data["address"],
            n_train=plan.data["n_train"],
            n_val=plan.data["n_val"],
            n_test=plan.data["n_test"],
            fingerprint=plan.data["fingerprint"],
            unit=unit,
            sample=sample_of(plan.task),
            facts=list(facts),
        ),
        machine=machine(),
        versions=versions(),
        commit=commit(),
        command=plan.command,
        written=datetime.now().astimezone().strftime("%Y-%m-%d"),
        over=going.is_over,
        stopped=going.stopped,
        cells=_cells(going),
        learning=_learning(going, metric),
        contenders=parts,
        pairs=pairs,
        recommendation=said,
        measurement=_measurement(going),
        fairness=fairness_of(going),
        notes=[*notes, *notes_of(going, contenders)],
    )


def _said(
    now: Reading, prices: Sequence[Price | None], minutes: Sequence[float | None], words: Words, alpha: float
) -> RecommendationPart:
    if now.found is None:
        told = {0: "no training has ended well yet", 1: "one contender alone has a run that ended well"}
        why = told.get(len(now.names), "the runs of the first look have not ended")
        return RecommendationPart(sentence=f"Cannot tell: {why}.", rule=RULE)
    found = recommend(
        now.found,
        now.names,
        prices,
        minutes_per_seed=minutes,
        **asdict(words),
        confidence=1 - alpha,
    )
    return RecommendationPart(
        name=None if found.index is None else now.names[found.index],
        sentence=found.sentence,
        rule=found.rule,
        ties=[now.names[index] for index in found.ties],
    )


def _pairs(now: Reading, minutes: Sequence[float | None], words: Words) -> list[PairPart]:
    parts = []
    for pair in () if now.found is None else now.found.pairs:
        need = None
        if now.found is not None and pair.verdict == "cannot tell":
            found = needs(
                now.found,
                pair.a,
                pair.b,
                minutes_per_seed=minutes,
                **asdict(words),
            )
            assert found is not None
            need = NeedsPart(seeds=found.seeds, images=found.images, minutes=found.minutes, words=found.words)
        parts.append(
            PairPart(
                a=now.names[pair.a],
                b=now.names[pair.b],
                difference=pair.difference,
                low=pair.low,
                high=pair.high,
                df=pair.df,
                p=pair.p,
                p_holm=pair.p_holm,
                p_same=pair.p_same,
                p_margin=pair.p_margin,
                verdict=pair.verdict,
                reason=pair.reason or None,
                p_outperform=pair.p_outperform,
                needs=need,
            )
        )
    return parts


def _words(metric: Metric, unit: str) -> Words:
    """How differences are written: in points, or for what is no fraction in the metric's own scale."""
    if metric.is_proportion or metric.name in PRECISIONS:
        return Words(POINT, unit=unit)
    return Words(1.0, metric.words, unit)


def _intervals(going: GoingOn, metric: Metric) -> dict[str, Interval]:
    """Of each contender's mean, on new seeds and new samples; none without results per sample."""
    names, scores = going.store.matrix(going.plan, list(going.cells.values()))
    if not scores or scores[0].ndim < 2 or scores[0].shape[1] < 2:
        return {}
    bounded = metric.name in PRECISIONS
    return dict(zip(names, interval([np.asarray(one) for one in scores], bounded=bounded), strict=True))


def _minutes(going: GoingOn, name: str) -> float | None:
    """Of one more seed."""
    walls = [cell.seconds["wall"] for (one, _), cell in going.cells.items() if one == name and cell.status == "done"]
    return math.fsum(walls) / len(walls) / 60 / max(going.jobs, 1) if walls else None


def _subject(names: Sequence[str]) -> str:
    """What the contenders differ in, for the title."""
    aliases = [Alias.of(name) for name in names]
    if any(alias.weights for alias in aliases) and len({alias.base for alias in aliases}) == 1:
        return "weights to begin from"
    return "token mixer" if _kind(names) == "mixer" else "model"


def _kind(names: Sequence[str]) -> Any:
    return "mixer" if all(Alias.of(name).base in MIXERS for name in names) else "model"


def _matched(name: str, contenders: Mapping[str, Contender], mixers: Sequence[str]) -> str | None:
    """Of a model beside mixers: its parameters against the middle one of theirs."""
    own = contenders.get(name)
    others = sorted(one.parameters for key in mixers if (one := contenders.get(key)) is not None and one.parameters)
    if name in mixers or own is None or not own.parameters or not others:
        return None
    ratio = own.parameters / others[len(others) // 2]
    if 1 / MATCHED <= ratio <= MATCHED:
        return f"matched: {ratio:.2f} times the parameters"
    return f"not matched: {ratio:.2f} times"


def _flops(one: Contender | None) -> FlopsPart:
    if one is None:
        return FlopsPart()
    counted = None if one.cost is None else one.cost.flops
    return FlopsPart(
        formula=one.flops or None,
        counted=None if counted is None else counted.counted,
        uncounted=[] if counted is None else list(counted.uncounted),
    )


def _cost(cost: Cost | None) -> CostPart:
    if cost is None:
        return CostPart()
    late = cost.latency
    milliseconds = (
        None
        if late is None
        else LatencyPart(**{key: 1e3 * getattr(late, key) for key in ("p50", "p95", "p99", "low", "high")})
    )
    return CostPart(
        latency_ms=milliseconds,
        images_per_s=_rate(cost.throughput),
        training_images_per_s=_rate(cost.training),
        peak_mb=cost.peak_memory_mb,
        inference_mb=cost.inference_memory_mb,
        energy_j=cost.energy_joules,
    )


def _rate(spread: Spread | None) -> RatePart | None:
    return None if spread is None else RatePart(median=spread.median, low=spread.low, high=spread.high)


def _cells(going: GoingOn) -> list[CellPart]:
    """Those that have ended, or were tried, in the order of the plan; one for a contender that cannot run."""
    found, told = [], set()
    for name, seed in going.plan.order:
        cell: Cell | None = going.cells.get((name, seed)) or going.failed.get((name, seed))
        why = going.plan.entry(name).cannot_run
        if why and name not in told:
            told.add(name)
            cell = Cell(name, seed, "cannot_run", why)
        if cell is None:
            continue
        seconds = {key: cell.seconds.get(key) for key in ("steps", "evaluation", "saving", "compile")}
        found.append(
            CellPart(
                contender=name,
                seed=seed,
                fold=cell.fold,
                status=cell.status,
                reason=cell.reason,
                step=cell.step,
                score=cell.score,
                seconds=SecondsPart(**seconds),
                load=cell.load,
                test_file=f"{cell.place}/{TEST}" if cell.test else None,
            )
        )
    return found


def _learning(going: GoingOn, metric: Metric) -> list[CurvePart]:
    """Of each run: the smoothed loss of training, and the metric along the way, where it was measured."""
    curves = []
    for (name, seed), cell in sorted(going.cells.items()):
        if cell.status != "done":
            continue
        history = Run(cell.run(going.folder)).history()
        loss = tuple((one["epoch"], float(one["loss"])) for one in history if one["kind"] == "train")
        along = [one for one in history if one["kind"] == "val" and metric.name in one]
        if going.plan.data["n_val"]:  # the last one is of the test part
            along = along[:-1]
        score: Points = [(one["epoch"], float(one[metric.name])) for one in along] if len(along) > 1 else []
        curves.append(CurvePart(contender=name, seed=seed, score=score, loss=_thinned(smooth(loss))))
    return curves


Points = list[tuple[float, float | None]]


def _thinned(curve: Sequence[tuple[float, float]], most: int = 100) -> Points:
    """Evenly spaced points, the last one among them: a page shows no more."""
    step = max(math.ceil(len(curve) / most), 1)
    return list(reversed(list(curve)[::-step]))


def _measurement(going: GoingOn) -> MeasurementPart:
    costs = list(going.costs.values())
    if not costs:
        return MeasurementPart()
    return MeasurementPart(
        load=costs[0].load,
        busy=any(cost.is_busy for cost in costs),
        batch_size=costs[0].batch_size,
        rounds=min(cost.rounds for cost in costs),
        notes=[str(failure) for failure in going.cost_failures],
    )
