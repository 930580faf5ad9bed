"""What detectors are trained with: boxes, matching, and the loss of a set of predictions."""

from regard.losses.boxes import cxcywh_of, generalized_iou, iou, xyxy_of
from regard.losses.matching import Matches, MatchingCosts, cost_matrix, match
from regard.losses.set_prediction import SetLosses, SetPredictionLoss

__all__ = [
    "Matches",
    "MatchingCosts",
    "SetLosses",
    "SetPredictionLoss",
    "cost_matrix",
    "cxcywh_of",
    "generalized_iou",
    "iou",
    "match",
    "xyxy_of",
]
