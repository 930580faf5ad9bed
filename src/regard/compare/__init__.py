"""Comparing models fairly: the same data, split and budget; cost measured apart; and the report."""

from regard.compare.contender import Contender, Cost
from regard.compare.experiment import compare, contender
from regard.compare.report import write_report
from regard.compare.table import accuracy_interval

__all__ = ["Contender", "Cost", "accuracy_interval", "compare", "contender", "write_report"]
