"""Comparing models fairly: the same data, split and budget; cost measured apart; and the report."""

from regard.compare.candidates import all_candidates, left_out_message
from regard.compare.contender import Contender, Cost, Metric
from regard.compare.dinov2_figure import Picture, dinov2_picture
from regard.compare.experiment import compare, contender
from regard.compare.report import SecondPart, write_report
from regard.compare.table import Interval, proportion_interval, score_interval

__all__ = [
    "Contender",
    "Cost",
    "Interval",
    "Metric",
    "Picture",
    "SecondPart",
    "all_candidates",
    "compare",
    "contender",
    "dinov2_picture",
    "left_out_message",
    "proportion_interval",
    "score_interval",
    "write_report",
]
