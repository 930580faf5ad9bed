"""What models are trained with: the losses of classes, of sets of boxes, of a teacher and of hidden patches."""

from regard.losses.boxes import cxcywh_of, generalized_iou, iou, xyxy_of
from regard.losses.classification import balanced_weights, sigmoid_loss, softmax_loss
from regard.losses.denoising import SIGMOID_COSTS, DNDETRLoss
from regard.losses.distillation import feature_loss, soft_target_loss
from regard.losses.masked_images import masked_loss, normalised_patches
from regard.losses.matching import Matches, MatchingCosts, cost_matrix, match, match_image
from regard.losses.set_prediction import SetLosses, SetPredictionLoss, matchability_loss, varifocal_loss

__all__ = [
    "SIGMOID_COSTS",
    "DNDETRLoss",
    "Matches",
    "MatchingCosts",
    "SetLosses",
    "SetPredictionLoss",
    "balanced_weights",
    "cost_matrix",
    "cxcywh_of",
    "feature_loss",
    "generalized_iou",
    "iou",
    "masked_loss",
    "match",
    "match_image",
    "matchability_loss",
    "normalised_patches",
    "sigmoid_loss",
    "soft_target_loss",
    "softmax_loss",
    "varifocal_loss",
    "xyxy_of",
]
