"""What is learned: each task owns its loss, its metrics, and how a prediction is shown."""

from regard.recipes import Recipe
from regard.tasks.classification.metrics import ClassFigures, Evaluation
from regard.tasks.classification.predictor import Classifier
from regard.tasks.classification.result import Prediction
from regard.tasks.classification.task import ClassificationTask
from regard.tasks.detection.metrics import FIGURES, ClassAP, DetectionEvaluation, PrecisionRecall
from regard.tasks.detection.predictor import Detector
from regard.tasks.detection.result import BoxRefinement, Detections
from regard.tasks.detection.task import DetectionTask, annotations_of, splits_of
from regard.tasks.features import features_of, nearest_neighbours
from regard.tasks.next_token.metrics import TextEvaluation
from regard.tasks.next_token.predictor import Writer
from regard.tasks.next_token.task import NextTokenTask
from regard.tasks.pretrained import preprocessing_of, pretrained_predictor
from regard.tasks.seq2seq.metrics import GroupFigures, PairEvaluation
from regard.tasks.seq2seq.predictor import Translator
from regard.tasks.seq2seq.result import Alignment, Translation
from regard.tasks.seq2seq.task import Seq2SeqTask
from regard.tasks.task import Task

__all__ = [
    "FIGURES",
    "PREDICTORS",
    "TASKS",
    "Alignment",
    "BoxRefinement",
    "ClassAP",
    "ClassFigures",
    "ClassificationTask",
    "Classifier",
    "DetectionEvaluation",
    "DetectionTask",
    "Detections",
    "Detector",
    "Evaluation",
    "GroupFigures",
    "NextTokenTask",
    "PairEvaluation",
    "PrecisionRecall",
    "Prediction",
    "Predictor",
    "Seq2SeqTask",
    "Task",
    "TextEvaluation",
    "Translation",
    "Translator",
    "Writer",
    "annotations_of",
    "create_task",
    "features_of",
    "nearest_neighbours",
    "preprocessing_of",
    "pretrained_predictor",
    "splits_of",
]

Predictor = Classifier | Detector | Translator | Writer

TASKS: dict[str, type[Task]] = {
    "classification": ClassificationTask,
    "detection": DetectionTask,
    "seq2seq": Seq2SeqTask,
    "next-token": NextTokenTask,
}
# What a run of each task is used with.
PREDICTORS: dict[str, type[Predictor]] = {
    "classification": Classifier,
    "detection": Detector,
    "seq2seq": Translator,
    "next-token": Writer,
}


def create_task(recipe: Recipe) -> Task:
    """The task that a recipe names, with its data opened."""
    return TASKS[recipe.task](recipe)
