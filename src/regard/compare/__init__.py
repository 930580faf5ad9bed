"""Comparing models: the same data, split and budget for each; their cost; and the report.

The journey of a comparison, from a recipe to a page:

    candidates.py       recipe -> the mixers and models that it can train: `variant` makes the recipe of one of them
    experiment.py       variants and seeds -> trained runs -> a contender for each name
    contender.py        a contender: its runs, its scores, its cost, and what failed
    cost.py             a run -> time of inference and memory of a training step, in a process of its own
    table.py            contenders -> the columns of the table, with confidence intervals
    task_view.py        what the page needs of a task: words for its samples, and a section on each contender
    task_views.py       task -> its task view: classification.py, detection.py, seq2seq.py, next_token.py
    report.py           contenders -> table, plots and sections -> report.html.j2 with the task's template -> one page
    page.py             a template, report.css and report.js -> HTML that runs its own script and no other
    record.py           contenders -> their figures as JSON
    dinov2_figure.py    a picture of a pretrained ViT for the demo's page
"""

from regard.compare.candidates import all_candidates, left_out_message
from regard.compare.contender import Contender, Cost, Failure, Metric, reason_of
from regard.compare.dinov2_figure import Picture, dinov2_picture
from regard.compare.experiment import compare, contender
from regard.compare.record import record_of
from regard.compare.report import Report, SecondPart, write_report
from regard.compare.table import Interval, proportion_interval, score_interval

__all__ = [
    "Contender",
    "Cost",
    "Failure",
    "Interval",
    "Metric",
    "Picture",
    "Report",
    "SecondPart",
    "all_candidates",
    "compare",
    "contender",
    "dinov2_picture",
    "left_out_message",
    "proportion_interval",
    "reason_of",
    "record_of",
    "score_interval",
    "write_report",
]
