"""From which score on an answer counts."""

import numpy as np
from jaxtyping import Bool, Float


def best_threshold(
    scores: Float[np.ndarray, " n"], correct: Bool[np.ndarray, " n"], objects: int, otherwise: float
) -> float:
    """The score t of largest F1 = 2 |correct with score ≥ t| / (|score ≥ t| + objects); of equal ones the highest.

    `otherwise` where nothing is correct.
    """
    if not correct.any():
        return otherwise
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(correct[order])
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + objects)
    last = np.append(scores[1:] != scores[:-1], True)  # equal scores are above a threshold together
    return float(scores[np.argmax(np.where(last, f1, -1.0))])
