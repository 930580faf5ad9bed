"""Which view shows which task. A new task is a file with its view, a template, and a line here."""

from regard.compare.classification import ClassificationView
from regard.compare.detection import DetectionView
from regard.compare.next_token import NextTokenView
from regard.compare.seq2seq import Seq2SeqView
from regard.compare.task_view import TaskView
from regard.errors import RegardError
from regard.tasks import ClassificationTask, DetectionTask, NextTokenTask, Seq2SeqTask, Task


def task_view_of(task: Task) -> TaskView:
    """RegardError for a task that has no view."""
    if isinstance(task, ClassificationTask):
        return ClassificationView(task)
    if isinstance(task, DetectionTask):
        return DetectionView(task)
    if isinstance(task, Seq2SeqTask):
        return Seq2SeqView(task)
    if isinstance(task, NextTokenTask):
        return NextTokenView(task)
    raise RegardError(f"a report cannot be made of {task.recipe.task}: it has no view of it")
