"""What classifiers are trained with, and detectors: boxes, matching, and the loss of a set of predictions."""

from regard.losses.boxes import cxcywh_of, generalized_iou, iou, xyxy_of
from regard.losses.classification import balanced_weights, sigmoid_loss, softmax_loss
from regard.losses.denoising import SIGMOID_COSTS, DNDETRLoss
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
    "generalized_iou",
    "iou",
    "match",
    "match_image",
    "matchability_loss",
    "sigmoid_loss",
    "softmax_loss",
    "varifocal_loss",
    "xyxy_of",
]
