"""Comparing models: the same data, split and budget for each; their cost; and the report.

The journey of a comparison, from a recipe to a page:

    candidates.py       recipe -> the mixers and models that it can train: `variant` makes the recipe of one of them
                        (aliases.py: attention@copy, conv@labels=0.1; own_weights.py: attention@weights=RUN)
    planning.py         recipe, names and wishes -> a plan (plan.py: plan.json and its hash; limits.py: budgets and when
                        to stop; own_runs.py: finished runs as contenders), and what it will take
    experiment.py       a cell of the plan -> its trained run and results (cells.py: its files; per_sample.py: what its
                        weights make of each test sample); jobs.py: several at once
    going_on.py         a folder -> the cells that it lacks, look by look (reading.py: cells -> verdicts), and the costs
                        (prices.py: as the recommendation puts them)
    answer.py           plan, cells, verdicts, costs -> the record that the page shows and `--json` holds (fairness.py:
                        its check list)
    contender.py        a contender: its runs, its scores, its cost, and what failed
    cost.py             runs -> time, memory and energy of each, measured in turn, in processes of their own
                        (processes.py: how they are asked; operations.py: what is counted; spread.py: medians)
    schema.py           the record of a comparison: all that its page shows and `--json` holds
    wording.py, axes.py a record's figures, pairs and costs in words
    ladder.py, cost_plot.py, learning_plot.py   a record -> charts, as SVG
    comparison_table.py a record -> its table, also as Markdown
    comparison_page.py  a record -> all that comparison.html.j2 shows; lighter.py makes its pictures smaller
    table.py            contenders -> the columns of the table, with confidence intervals
    task_view.py        what the page needs of a task: words for its samples, and a section on each contender
    task_views.py       task -> its task view: classification.py, detection.py, seq2seq.py, next_token.py,
                        pretraining.py (pretraining_pictures.py: what a pre-trained model sees; newest_state.py: its
                        decoder; efficiency_chart.py: accuracy against labels)
    report.py           contenders -> table, plots and sections -> report.html.j2 with the task's template -> one page
    page.py             a template, report.css and report.js -> HTML that runs its own script and no other
    scale.py            mixers -> timings at 49 to 50,176 tokens (scale_worker.py), in rounds; cost_model.py: timings ->
                        a + bN + cN² + eN log N, its slope, and where two cross; scale_page.py: charts and sentences
    opening.py          the head of the demo's page, which grows: its parts, and a picture to look at meanwhile
"""

from regard.compare.candidates import all_candidates, left_out_message
from regard.compare.comparison_table import markdown
from regard.compare.contender import Contender, Cost, Failure, Metric, reason_of
from regard.compare.experiment import compare, contender
from regard.compare.ladder import ladder_svg
from regard.compare.opening import Opening, Part, Picture, write_opening
from regard.compare.report import Report, SecondPart, write_report
from regard.compare.schema import Record
from regard.compare.table import Interval, proportion_interval, score_interval

__all__ = [
    "Contender",
    "Cost",
    "Failure",
    "Interval",
    "Metric",
    "Opening",
    "Part",
    "Picture",
    "Record",
    "Report",
    "SecondPart",
    "all_candidates",
    "compare",
    "contender",
    "ladder_svg",
    "left_out_message",
    "markdown",
    "proportion_interval",
    "reason_of",
    "score_interval",
    "write_opening",
    "write_report",
]
