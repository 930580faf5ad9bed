"""How often verdicts of a comparison are wrong, intervals miss the truth, and a recommendation is a false claim.

Run: .venv/bin/python benchmarks/verdicts.py [--comparisons 1000] [--only PARTS]
Parts: twins, intervals, looks, recommendations (with a margin of 1 point, and of 2), jackknife, speed.
Nothing is compared but contenders whose truth is known: runs of one network under several names (24 trainings on
digits at three strengths, runs and test images drawn anew for each comparison), and simulated ones. Wanted: "better" or
"worse" between equals in at most 6.5% of comparisons (5% and the error of 1,000 of them), all pairs of eight together;
95% intervals that cover the truth in 92 to 98%; with looks at 3, 5, 8 and 12 seeds at most 5% wrong, and four points
found in 95% with at most six seeds; a recommended contender truly worse than the margin in at most 5%.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peer import save
from regard.compare.inference import Verdicts, interval, simulate, verdicts
from regard.compare.jackknife import GROUPS
from regard.compare.looks import dropped, kept, looks
from regard.compare.recommendation import Price, recommend

Array = NDArray[np.float64]
SEEDS = (3, 5, 10)
# Standard deviation of a run's accuracy, at each accuracy: as of networks on digits.
NOISE = {0.98: 0.004, 0.9: 0.0125, 0.75: 0.025}


def real_runs(number: int = 24) -> dict[str, Array]:
    """Whether each run reads each of 450 digits, (runs, images), of networks at three strengths."""
    from sklearn.datasets import load_digits
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    test, train = order[:450], order[450:]
    found = {}
    for name, images, epochs, batch in (("strong", 1347, 30, 64), ("middle", 200, 30, 64), ("weak", 60, 40, 20)):
        rows, part = [], train[:images]
        for seed in range(number):
            network = MLPClassifier(
                (48,), max_iter=epochs, batch_size=batch, learning_rate_init=0.003, random_state=seed
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                rows.append(network.fit(x[part] / 16, y[part]).predict(x[test] / 16) == y[test])
        found[name] = np.array(rows, dtype=np.float64)
    return found


def aliases(pool: Array, contenders: int, seeds: int, random: np.random.Generator) -> Array:
    """X of one network under several names: runs drawn anew, none twice where there are enough, and images."""
    count = contenders * seeds
    runs = random.choice(len(pool), count, replace=count > len(pool))
    images = random.integers(0, pool.shape[1], pool.shape[1])
    return pool[runs][:, images].reshape(contenders, seeds, -1)


def different(found: Verdicts) -> bool:
    return any(pair.verdict in ("better", "worse") for pair in found.pairs)


def rate(draw: Callable[[np.random.Generator], Array], comparisons: int, seed: int = 0) -> float:
    """How many comparisons find any difference."""
    random = np.random.default_rng(seed)
    return sum(different(verdicts(draw(random), 0.01)) for _ in range(comparisons)) / comparisons


def equals(pools: dict[str, Array]) -> dict[str, Callable[[int, int], Callable[[np.random.Generator], Array]]]:
    """Scenario -> (contenders, seeds) -> what draws X of contenders that are equal."""
    found: dict[str, Any] = {
        f"aliases, {name}": lambda c, r, pool=pool: lambda random: aliases(pool, c, r, random)
        for name, pool in pools.items()
    }
    for accuracy, noise in NOISE.items():
        for what, noises, shared, own in (
            ("other images", 1, 0.0, 0.6),
            ("same images", 1, 0.6, 0.0),
            ("a third of the seed noise", 1 / 3, 0.5, 0.1),
            ("one at three times the seed noise", 3, 0.5, 0.1),
        ):

            def of(c: int, r: int, a=accuracy, sd=noise, times=noises, s=shared, o=own) -> Any:
                sds = [sd * times] + [sd * (1 if times == 3 else times)] * (c - 1)
                return lambda random: simulate([a] * c, r, 450, seed_sd=sds, shared=s, own=o, seed=random)

            found[f"{100 * accuracy:.0f}%, {what}"] = of
    return found


def twins(pools: dict[str, Array], comparisons: int) -> dict[str, dict[str, float]]:
    """Scenario -> "2 contenders, 3 seeds" -> how often equals come out different."""
    return {
        name: {f"{c} contenders, {r} seeds": rate(of(c, r), comparisons) for c in (2, 8) for r in SEEDS}
        for name, of in equals(pools).items()
    }


def intervals(comparisons: int) -> dict[str, dict[str, float]]:
    """How often 95% intervals cover the truth, on new seeds and images each time; and the least width of any."""
    random, found, least = np.random.default_rng(1), {}, 1.0
    for accuracy, noise in NOISE.items():
        for images in (450, 2000):
            for seeds in SEEDS:
                hits = np.zeros(3)
                for _ in range(comparisons):
                    truth = [accuracy, accuracy - 0.02]
                    x = simulate(truth, seeds, images, seed_sd=noise, seed=random)
                    one, both = interval(x[0]), verdicts(x, 0.01).pairs[0]
                    eight = interval(
                        np.concatenate([x, simulate(truth * 3, seeds, images, seed_sd=noise, seed=random)])
                    )
                    hits += (
                        one.low <= accuracy <= one.high,
                        eight[0].low <= accuracy <= eight[0].high,
                        both.low <= 0.02 <= both.high,
                    )
                    least = min(least, one.high - one.low, eight[0].high - eight[0].low, both.high - both.low)
                names = ("a contender alone", "a contender of eight", "a difference")
                found[f"{100 * accuracy:.0f}%, {images} images, {seeds} seeds"] = dict(
                    zip(names, (hits / comparisons).tolist(), strict=True)
                )
    right = np.ones((2, 3, 450))
    least = min(least, interval(right[0]).high - interval(right[0]).low)
    least = min(least, verdicts(right, 0.01).pairs[0].high - verdicts(right, 0.01).pairs[0].low)
    return {"coverage": found, "least width": least}  # type: ignore[dict-item]


def with_looks(x: Array, margin: float = 0.01) -> tuple[Verdicts, int]:
    """The verdicts at the look that tells all pairs, or at the last, and its seeds. Who is out gets no more."""
    found, runs = None, np.zeros(len(x), dtype=int)
    out: list[int] = []
    for look in looks(x.shape[1]):
        runs[[c for c in range(len(x)) if c not in out]] = look.seeds
        found = kept(found, verdicts([one[:r] for one, r in zip(x, runs, strict=True)], margin, look.alpha))
        out = dropped(found)
        if all(pair.verdict != "cannot tell" for pair in found.pairs):
            break
    assert found is not None
    return found, look.seeds


def sequences(pools: dict[str, Array], comparisons: int) -> dict[str, Any]:
    """Looks at 3, 5, 8 and 12 seeds: how often equals come out different, and what a difference of 4 points takes."""
    random, found = np.random.default_rng(2), {}
    for name, draw in {
        **{f"aliases, {name}": lambda c, pool=pool: aliases(pool, c, 12, random) for name, pool in pools.items()},
        "97%, simulated": lambda c: simulate([0.97] * c, 12, 450, seed_sd=0.005, seed=random),
        "90%, simulated": lambda c: simulate([0.9] * c, 12, 450, seed_sd=0.0125, seed=random),
    }.items():
        found[name] = {
            f"{c} contenders": sum(different(with_looks(draw(c))[0]) for _ in range(comparisons)) / comparisons
            for c in (2, 8)
        }
    four = [with_looks(simulate([0.97, 0.93], 12, 450, seed_sd=0.005, seed=random)) for _ in range(comparisons)]
    return {
        "equals come out different": found,
        "4 points at 97%": {
            "found": float(np.mean([one.pairs[0].verdict == "better" for one, _ in four])),
            "seeds": float(np.mean([seeds for _, seeds in four])),
        },
    }


def recommendations(comparisons: int, margin: float = 0.01) -> dict[str, dict[str, float]]:
    """How often a contender is recommended that is worse than the best by more than the margin, and any at all.

    The last contender costs most; with "just too bad" it is the best, and all others are worse by the margin and a bit.
    """
    random, found = np.random.default_rng(3), {}
    for contenders in (2, 8):
        cases: dict[str, Callable[[], Array]] = {
            "just too bad": lambda c=contenders: np.array([0.97 - margin * 1.02] * (c - 1) + [0.97]),
            "half too bad": lambda c=contenders: np.array([0.97 - margin * 1.02, 0.97] * (c // 2)),
            "two points apart": lambda c=contenders: np.linspace(0.95, 0.97, c),
            "anything": lambda c=contenders: 0.97 - np.abs(random.normal(0, 0.02, c)).clip(0, 0.2),
        }
        for name, truth_of in cases.items():
            for seeds in (5, 12):
                false = known = 0
                for _ in range(comparisons):
                    truth = truth_of()
                    x = simulate(truth.tolist(), seeds, 450, seed_sd=0.005, seed=random)
                    index = first_known(x, margin) if seeds == 12 else recommended(verdicts(x, margin))
                    known += index is not None
                    false += index is not None and truth[index] < truth.max() - margin
                how = "looks up to 12 seeds" if seeds == 12 else "5 seeds"
                found[f"{contenders} contenders, {name}, {how}"] = {
                    "false": false / comparisons,
                    "known": known / comparisons,
                }
    return found


def recommended(found: Verdicts) -> int | None:
    prices = [Price(c, c, c, str(c)) for c in range(len(found.runs))]
    return recommend(found, [str(c) for c in range(len(found.runs))], prices).index


def first_known(x: Array, margin: float) -> int | None:
    """What is recommended at the first look that gives a recommendation."""
    found, runs = None, np.zeros(len(x), dtype=int)
    out: list[int] = []
    for look in looks(x.shape[1]):
        runs[[c for c in range(len(x)) if c not in out]] = look.seeds
        found = kept(found, verdicts([one[:r] for one, r in zip(x, runs, strict=True)], margin, look.alpha))
        if (index := recommended(found)) is not None:
            return index
        out = dropped(found)
    return None


def average_precisions(scores: Array, right: NDArray[np.bool_], group: Any, of_objects: Any) -> Array:
    """AP of all detections, and of those without each group: the area under the best precision at a recall or above."""
    order = np.argsort(-scores, kind="stable")
    left = np.concatenate([np.ones((1, len(order)), bool), group[order] != np.arange(GROUPS)[:, None]])
    true, count = np.cumsum(left & right[order], axis=1), np.cumsum(left, axis=1)
    precision = np.where(left, true / np.maximum(count, 1), 0.0)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    objects = len(of_objects) - np.concatenate([[0], np.bincount(of_objects, minlength=GROUPS)])
    return (best * (left & right[order])).sum(1) / np.where(objects, objects, np.nan)


def detectors(contenders: int, seeds: int, images: int, classes: int, random: np.random.Generator) -> Array:
    """Pseudo-values, (contenders, seeds, groups), of AP of detectors that are equal: objects are hard for all of them.

    Class k has a fraction 2^−k of the objects of the first one. A detection's score and whether it is right depend on
    the object, the contender's and the run's skill, and chance; half of the places that look like an object are shared.
    """
    parts = []
    for k in range(classes):
        counts = random.poisson(2 / 2**k, images)
        objects, decoys = np.repeat(np.arange(images), counts), random.integers(0, images, images)
        hard, lure = random.standard_normal(len(objects)), random.standard_normal(len(decoys))
        parts.append((objects, decoys, hard, lure))
    x = np.zeros((contenders, seeds, GROUPS))
    for c in range(contenders):
        own = [(random.standard_normal(len(p[2])), random.standard_normal(len(p[3]))) for p in parts]
        for r in range(seeds):
            skill, aps = 0.1 * random.standard_normal(), []
            for (objects, decoys, hard, lure), (mine, other) in zip(parts, own, strict=True):
                sees = 1.0 + skill + 0.8 * hard + 0.3 * mine + 0.5 * random.standard_normal(len(objects))
                fooled = -0.5 + 0.7 * lure + 0.3 * other + 0.5 * random.standard_normal(len(decoys))
                right = np.concatenate([sees > 0.2, np.zeros(len(decoys), dtype=bool)])
                places = np.concatenate([objects, decoys])
                scores = np.concatenate([sees, fooled])
                aps.append(average_precisions(scores, right, places % GROUPS, objects % GROUPS))
            ap = np.nanmean(aps, axis=0)  # over the classes that have objects
            x[c, r] = GROUPS * ap[0] - (GROUPS - 1) * ap[1:]
    return x


def jackknife(comparisons: int) -> dict[str, dict[str, float]]:
    """How often equal detectors come out different by pseudo-values of AP."""
    random = np.random.default_rng(4)
    return {
        f"{images} images, {classes} classes": {
            f"{c} contenders, {r} seeds": sum(
                different(verdicts(detectors(c, r, images, classes, random), 0.01)) for _ in range(comparisons)
            )
            / comparisons
            for c, r in ((2, 3), (2, 5), (2, 10), (8, 5))
        }
        for images in (40, 100, 400)
        for classes in (1, 4)
    }


def speed() -> dict[str, float]:
    """Seconds for verdicts on 8 contenders, 12 seeds and 10,000 images, the median of five."""
    x, seconds = simulate([0.9] * 8, 12, 10_000), []
    for _ in range(5):
        start = time.perf_counter()
        verdicts(x, 0.01)
        seconds.append(time.perf_counter() - start)
    return {"seconds": float(np.median(seconds))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=1000)
    parser.add_argument("--only", default="", help="parts to run, with semicolons between; no file is then written")
    given = parser.parse_args()
    pools, many = real_runs(), given.comparisons
    parts: dict[str, Callable[[], Any]] = {
        "twins": lambda: twins(pools, many),
        "intervals": lambda: intervals(many),
        "looks": lambda: sequences(pools, many),
        "recommendations": lambda: recommendations(max(many // 2, 1)),
        "recommendations, margin of 2 points": lambda: recommendations(max(many // 2, 1), 0.02),
        "jackknife": lambda: jackknife(max(many // 2, 1)),
        "speed": speed,
    }
    results: dict[str, Any] = {"comparisons": many}
    for name in given.only.split(";") if given.only else parts:
        start = time.perf_counter()
        results[name] = parts[name]()
        print(f"{name}, {time.perf_counter() - start:.0f} s:", json.dumps(results[name], indent=1), flush=True)
    if not given.only:
        print(save("verdicts", results, ("numpy", "scipy", "scikit-learn")))


if __name__ == "__main__":
    main()
