"""The figures of a comparison for programs: what `--json FILE` holds."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from regard.compare.contender import Contender, Failure


def record_of(
    contenders: Sequence[Contender], names: Sequence[str], seeds: int, failures: Sequence[Failure], *, is_over: bool
) -> dict[str, Any]:
    """The contenders in the order of `names`, as far as they have begun.

    What was not measured is null, and so is a score that is not finite.
    """
    return {
        "over": is_over,
        "names": list(names),
        "seeds": seeds,
        "contenders": [_values(contender) for contender in contenders],
        "failures": [asdict(failure) for failure in failures],
    }


def _values(one: Contender) -> dict[str, Any]:
    return {
        "name": one.name,
        "metric": one.metric.name,
        "larger_is_better": one.metric.larger_is_better,
        "runs": [str(run) for run in one.runs],
        "scores": list(one.scores),
        "parameters": one.parameters,
        "flops": one.flops,
        "training_seconds": one.training_seconds,
        "cost": None if one.cost is None else asdict(one.cost),
    }
