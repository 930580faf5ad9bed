"""What detectors are trained with: boxes, matching, and the loss of a set of predictions."""

from regard.losses.boxes import cxcywh_of, generalized_iou, iou, xyxy_of
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
    "cost_matrix",
    "cxcywh_of",
    "generalized_iou",
    "iou",
    "match",
    "match_image",
    "matchability_loss",
    "varifocal_loss",
    "xyxy_of",
]
