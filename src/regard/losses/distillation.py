"""What a student learns from a teacher: its features, and its classes."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def feature_loss(
    predicted: Float[Tensor, "*shape channels"], wanted: Float[Tensor, "*shape channels"]
) -> Float[Tensor, ""]:
    """The mean of Huber's function h(x) = x²/2 where |x| < 1, |x| - 1/2 elsewhere, of predicted - wanted.

    It is the loss of feature distillation (Wei et al. 2022, "Contrastive learning rivals masked image modeling in
    fine-tuning via feature distillation", section 3), with β = 1. Targets are standardised first: a network's few
    channels of large values would else be all that counts. They normalise each vector over its channels; here each
    channel is standardised over the images (`Student.standardise`).
    """
    return F.smooth_l1_loss(predicted.float(), wanted.float())


def soft_target_loss(
    logits: Float[Tensor, "batch num_classes"],
    teacher_logits: Float[Tensor, "batch num_classes"],
    *,
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """T² KL(softmax(t / T) ‖ softmax(s / T)), the mean over the batch (Hinton et al. 2015, section 2).

    s, t: the logits of student and teacher. T: the temperature, which softens both; T² keeps the gradient's size.
    """
    ours = (logits.float() / temperature).log_softmax(1)
    theirs = (teacher_logits.float() / temperature).log_softmax(1)
    return temperature**2 * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
