"""The losses of classification: of one class for each image, and of any number of classes."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from torch import Tensor

LEAST = 1e-8  # of 1 - p under a power below 1, whose slope at 0 is infinite


def softmax_loss(
    logits: Float[Tensor, "batch num_classes"],
    targets: Int64[Tensor, " batch"] | Float[Tensor, "batch num_classes"],
    *,
    weights: Float[Tensor, " num_classes"] | None = None,
    gamma: float = 0.0,
    smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Cross-entropy of one class for each image: the mean over images of -Σ_c w_c t_c (1 - p_c)^γ log p_c.

    p is the softmax of the logits, t the target: the class of each image, or probabilities (after mixup), smoothed to
    (1 - s) t + s / num_classes. γ > 0 is the focal loss (Lin et al. 2017, eq. 4).
    """
    if weights is None and not gamma:
        return F.cross_entropy(logits, targets, label_smoothing=smoothing)
    count = logits.shape[1]
    if targets.ndim == 1:
        targets = F.one_hot(targets, count)
    log_p = _exact(logits).log_softmax(1)
    terms = ((1 - smoothing) * targets + smoothing / count) * -log_p
    if gamma:
        terms = terms * (-torch.expm1(log_p)).clamp(min=LEAST) ** gamma
    if weights is not None:
        terms = terms * weights.to(terms.device)
    return terms.sum(1).mean()


def sigmoid_loss(
    logits: Float[Tensor, "batch num_classes"],
    targets: Int64[Tensor, "batch num_classes"] | Float[Tensor, "batch num_classes"],
    *,
    weights: Float[Tensor, "2 num_classes"] | None = None,
    gamma: float = 0.0,
    smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Binary cross-entropy of each class: the mean over images and classes of

        -(1 - p_t)^γ (w_1 t log p + w_0 (1 - t) log(1 - p)),  p_t = p t + (1 - p) (1 - t).

    p is the sigmoid of the logit; t is whether the image has the class, or how much of it (after mixup), smoothed to
    (1 - s) t + s / 2; w_0 and w_1 are the rows of `weights`. γ > 0 is the focal loss (Lin et al. 2017, eq. 4).
    """
    logits = _exact(logits)
    targets = (1 - smoothing) * targets.to(logits.dtype) + smoothing / 2
    without, having = (1.0, 1.0) if weights is None else weights.to(logits.device)
    terms = having * targets * F.softplus(-logits) + without * (1 - targets) * F.softplus(logits)
    if gamma:
        p = logits.sigmoid()
        terms = terms * (p * (1 - targets) + (1 - p) * targets).clamp(min=LEAST) ** gamma
    return terms.mean()


def balanced_weights(
    labels: Int64[Tensor, " images *classes"], num_classes: int
) -> Float32[Tensor, "*two num_classes"]:
    """Weights under which all classes count the same, as scikit-learn's "balanced": their mean over the images is 1.

    Of one class for each image: w_c = images / (classes · images of c). Of several: the same for each class against its
    absence, (2, num_classes), first without the class, then with it. What does not occur has weight 1.
    """
    if labels.ndim == 1:
        counts = torch.bincount(labels, minlength=num_classes).double()
        present = int((counts > 0).sum())
    else:
        having = labels.double().sum(0)
        counts, present = torch.stack([len(labels) - having, having]), 2
    weights = len(labels) / (present * counts)
    if labels.ndim == 2:  # a class that all images have, or none, has nothing to be balanced against
        weights[:, (counts == 0).any(0)] = 1.0
    return torch.where(counts > 0, weights, 1.0).float()


def _exact(logits: Float[Tensor, "batch num_classes"]) -> Float[Tensor, "batch num_classes"]:
    """In float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
