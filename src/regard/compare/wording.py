"""A record in words: its figures as text, its pairs seen from either side, and how far it has come."""

import math
from collections import Counter

from regard.compare.schema import CellPart, ContenderPart, MetricPart, PairPart, Record, Verdict
from regard.compare.table import listed
from regard.draw.names import in_one_line

TURNED: dict[Verdict, Verdict] = {"better": "worse", "worse": "better"}
# How many contenders, where a sentence says it.
SMALL = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def score_text(metric: MetricPart, value: float | int | None) -> str:
    """98.2 (a percentage) or 1.913; a dash for what is not known."""
    if value is None:
        return "–"
    return f"{100 * value:.1f}" if metric.is_proportion else f"{value:.3f}"


def span_text(metric: MetricPart, low: float | int | None, high: float | int | None) -> str:
    return "–" if low is None or high is None else f"{score_text(metric, low)} to {score_text(metric, high)}"


def signed(metric: MetricPart, value: float | int | None) -> str:
    """+1.2 (points) or −0.013."""
    text = score_text(metric, value)
    if value is None or not text.strip("-0."):
        return text.removeprefix("-")
    return text.replace("-", "−") if value < 0 else f"+{text}"


def difference_text(metric: MetricPart, pair: PairPart) -> str:
    """+1.2 (0.4 to 2.0)"""
    if pair.difference is None:
        return "–"
    within = f" ({signed(metric, pair.low)} to {signed(metric, pair.high)})" if pair.low is not None else ""
    return signed(metric, pair.difference) + within


def unit_of(metric: MetricPart) -> str:
    return "%" if metric.is_proportion else ""


def margin_words(record: Record) -> str:
    """1 point; of a metric that is no proportion also what a point is."""
    margin, metric = record.plan.margin, record.metric
    words = counted(margin, "point")
    return words if metric.is_proportion else f"{words} ({margin * metric.point:g} of {metric.words})"


def counted(number: float | int, word: str) -> str:
    """1 seed, 3 seeds"""
    return f"{number:g} {word}{'' if number == 1 else 's'}"


def chart_names(record: Record, longest: int) -> dict[str, str]:
    """The contenders' names in at most `longest` letters. Of a long one with weights the middle is left out, at such a
    place that names stay apart."""
    names = [one.name for one in record.contenders]
    # Where the middle is cut out: letters that stay before it, half of them first.
    for head in sorted(range(longest - 1), key=lambda head: abs(head - longest // 2)):
        found = {name: _cut(name, head, longest) for name in names}
        if len(set(found.values())) == len(names):
            return found
    return {name: in_one_line(name, longest) for name in names}


def _cut(name: str, head: int, longest: int) -> str:
    line = in_one_line(name)
    if "@weights=" not in line or len(line) <= longest:
        return in_one_line(line, longest)
    short = line.replace("@weights=", "@", 1)
    return short if len(short) <= longest else f"{short[:head]}…{short[len(short) - (longest - head - 1) :]}"


def ranked(record: Record) -> list[ContenderPart]:
    """The contenders, the best mean first; those without a score last."""
    sign = -1 if record.metric.larger_is_better else 1
    return sorted(record.contenders, key=lambda one: math.inf if one.mean is None else sign * one.mean)


def reference_of(record: Record) -> str | None:
    """Whom verdicts are told against: the recommended contender, or else the one with the best mean."""
    best = ranked(record)[:1]
    return record.recommendation.name or (best[0].name if best and best[0].mean is not None else None)


def seen_from(pair: PairPart, name: str) -> PairPart:
    """The pair with `name` as a."""
    if pair.a == name:
        return pair
    turned = {
        "a": pair.b,
        "b": pair.a,
        "difference": _negative(pair.difference),
        "low": _negative(pair.high),
        "high": _negative(pair.low),
        "verdict": TURNED.get(pair.verdict, pair.verdict),
        "p_outperform": None if pair.p_outperform is None else 1 - pair.p_outperform,
    }
    return pair.model_copy(update=turned)


def _negative(value: float | int | None) -> float | None:
    return None if value is None else -value


def pair_between(record: Record, a: str, b: str) -> PairPart | None:
    """What is known of a against b."""
    return next((seen_from(pair, a) for pair in record.pairs if {pair.a, pair.b} == {a, b}), None)


def best_of_all(record: Record) -> str | None:
    """The contender that the verdicts call better than each of the others; most often there is none."""
    names = [one.name for one in record.contenders]
    for name in names:
        pairs = [pair_between(record, name, other) for other in names if other != name]
        if pairs and all(pair is not None and pair.verdict == "better" for pair in pairs):
            return name
    return None


def done(record: Record, name: str | None = None) -> list[CellPart]:
    return [cell for cell in record.cells if cell.status == "done" and name in (None, cell.contender)]


def failures(record: Record) -> list[tuple[str, str]]:
    """(contender and seed, what happened) of each cell that has no score and a reason."""
    found = []
    for cell in record.cells:
        at = "" if cell.step is None else f" at step {cell.step}"
        what = {"diverged": f"diverged{at}", "cannot_run": "cannot run", "missing": f"no result{at}", "done": ""}
        if cell.status != "done" and (cell.reason or cell.status != "missing"):
            reason = f": {cell.reason}" if cell.reason else ""
            found.append((f"{cell.contender}, seed {cell.seed}", what[cell.status] + reason))
    return found


def progress_words(record: Record) -> str:
    """24 of at most 96 trainings are done, 3 seeds each."""
    ended, planned = done(record), len(record.plan.order) or len(record.cells)
    seeds = Counter(cell.contender for cell in ended)
    numbers = [str(number) for number in sorted(set(seeds.values()))]
    each = f", {listed(numbers)} seed{'' if numbers == ['1'] else 's'} each" if numbers else ""
    most = "at most " if len(record.plan.looks) > 1 and len(ended) < planned else ""
    verb = "is" if len(ended) == 1 else "are"
    if len(ended) == planned:
        return f"{counted(planned, 'training')} {verb} done{each}."
    return f"{len(ended)} of {most}{counted(planned, 'training')} {verb} done{each}."


def has_one_seed(record: Record) -> bool:
    seeds = Counter(cell.contender for cell in done(record))
    return bool(seeds) and max(seeds.values()) == 1
