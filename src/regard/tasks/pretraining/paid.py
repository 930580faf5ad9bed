"""Whether a pre-training that began from weights made them better."""

from typing import Any

from jaxtyping import Bool
from torch import Tensor

SURE = 0.05


def paid(before: Bool[Tensor, " images"], after: Bool[Tensor, " images"]) -> dict[str, Any]:
    """A linear head's accuracy on the features before and after, on the same images, and whether it paid.

    `p` is that of McNemar's exact test: how likely so many images, or more, of those that changed would have changed
    in one direction if both were equally likely.
    """
    from scipy.stats import binomtest

    won, lost = int((after & ~before).sum()), int((before & ~after).sum())
    p = float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
    verdict = "cannot be told" if p >= SURE else "paid" if won > lost else "did harm"
    return {
        "linear_before": before.float().mean().item(),
        "linear_after": after.float().mean().item(),
        "won": won,
        "lost": lost,
        "p": p,
        "verdict": verdict,
    }


def paid_words(start: str, found: dict[str, Any]) -> str:
    """One line."""
    verdict = {"cannot be told": "whether it paid cannot be told", "paid": "it paid", "did harm": "it did harm"}
    return (
        f"from {start}: a linear head on the features finds {found['linear_before']:.3f} of the classes before and "
        f"{found['linear_after']:.3f} now ({found['won']} images won, {found['lost']} lost, p = {found['p']:.2g}): "
        f"{verdict[found['verdict']]}"
    )
