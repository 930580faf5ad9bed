"""The task view of each task. A new task needs a file with its view, a template, and a line here."""

from regard.compare.classification import ClassificationView
from regard.compare.detection import DetectionView
from regard.compare.multi_label import MultiLabelView
from regard.compare.next_token import NextTokenView
from regard.compare.pretraining import PretrainingView
from regard.compare.seq2seq import Seq2SeqView
from regard.compare.task_view import TaskView
from regard.errors import RegardError
from regard.tasks import ClassificationTask, DetectionTask, NextTokenTask, PretrainingTask, Seq2SeqTask, Task


def task_view_of(task: Task) -> TaskView:
    """The task view of a task. RegardError for a task that has none."""
    if isinstance(task, ClassificationTask):
        return MultiLabelView(task) if task.data.multi_label else ClassificationView(task)
    if isinstance(task, DetectionTask):
        return DetectionView(task)
    if isinstance(task, Seq2SeqTask):
        return Seq2SeqView(task)
    if isinstance(task, NextTokenTask):
        return NextTokenView(task)
    if isinstance(task, PretrainingTask):
        return PretrainingView(task)
    raise RegardError(f"a report on {task.recipe.task} cannot be made: it has no task view")
