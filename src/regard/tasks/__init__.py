"""What is learned: each task owns its loss, its metrics, and how a prediction is shown."""

from regard.recipes import Recipe
from regard.tasks.classification import ClassificationTask
from regard.tasks.classifier import Classifier, Prediction
from regard.tasks.metrics import ClassFigures, Evaluation
from regard.tasks.task import Task

__all__ = [
    "TASKS",
    "ClassFigures",
    "ClassificationTask",
    "Classifier",
    "Evaluation",
    "Prediction",
    "Task",
    "create_task",
]

TASKS = {"classification": ClassificationTask}


def create_task(recipe: Recipe) -> Task:
    """The task that a recipe names, with its data opened."""
    return TASKS[recipe.task](recipe)
