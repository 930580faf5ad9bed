"""Multinomial logistic regression: the best linear head on features that do not change."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from regard.losses import sigmoid_loss, softmax_loss


def logistic_regression(
    features: Float[Tensor, "images num_features"],
    labels: Int64[Tensor, " images *classes"],
    num_classes: int,
    *,
    weights: Float[Tensor, "*two num_classes"] | None = None,
    penalty: float = 1.0,
    max_iterations: int = 500,
) -> tuple[Float[Tensor, "num_classes num_features"], Float[Tensor, " num_classes"]]:
    """The W and b of least Σ_i w_i cross_entropy(W x_i + b, y_i) + penalty / 2 · ‖W‖², by L-BFGS from zero.

    It is scikit-learn's LogisticRegression with C = 1 / penalty; w_i = `weights[y_i]`, or 1. Where `labels` are rows of
    zeros and ones, each class has a logistic regression of its own, with weights (without the class, with it). The
    features are centred on the way, which changes b alone and takes fewer iterations.
    """
    centre = features.mean(0)
    x = features - centre
    weight = torch.zeros(num_classes, x.shape[1], device=x.device, requires_grad=True)
    bias = torch.zeros(num_classes, device=x.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=max_iterations,
        history_size=20,
        tolerance_grad=1e-6,
        line_search_fn="strong_wolfe",
    )

    def mean_loss() -> Tensor:
        optimizer.zero_grad()
        logits = x @ weight.T + bias
        if labels.ndim == 1:
            loss = softmax_loss(logits, labels, weights=weights)
        else:  # the sum over the classes, as if each were alone
            loss = num_classes * sigmoid_loss(logits, labels, weights=weights)
        loss = loss + penalty / 2 / len(x) * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(mean_loss)
    return weight.detach(), (bias - weight @ centre).detach()
