"""Comparing models fairly: the same data, split and budget; cost measured apart; and the report."""

from regard.compare.contender import Contender, Cost, Metric
from regard.compare.experiment import compare, contender
from regard.compare.field import left_out_words, whole_field
from regard.compare.real import Picture, real_look
from regard.compare.report import SecondPart, write_report
from regard.compare.table import Interval, proportion_interval, score_interval

__all__ = [
    "Contender",
    "Cost",
    "Interval",
    "Metric",
    "Picture",
    "SecondPart",
    "compare",
    "contender",
    "left_out_words",
    "proportion_interval",
    "real_look",
    "score_interval",
    "whole_field",
    "write_report",
]
