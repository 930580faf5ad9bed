"""What is learned: each task owns its loss, its metrics, and how a prediction is shown."""

from regard.recipes import Recipe
from regard.tasks.classification import ClassificationTask
from regard.tasks.classifier import Classifier, Prediction
from regard.tasks.detection import DetectionTask, annotations_of, parts_of
from regard.tasks.detection_metrics import FIGURES, ClassAP, DetectionEvaluation, PrecisionRecall
from regard.tasks.detections import Detections, Settling
from regard.tasks.detector import Detector
from regard.tasks.features import features_of, nearest_neighbours
from regard.tasks.metrics import ClassFigures, Evaluation
from regard.tasks.next_token import NextTokenTask
from regard.tasks.pretrained import preprocessing_of, pretrained_predictor
from regard.tasks.seq2seq import Seq2SeqTask
from regard.tasks.task import Task
from regard.tasks.text_metrics import GroupFigures, PairEvaluation, TextEvaluation
from regard.tasks.translator import Alignment, Translation, Translator
from regard.tasks.writer import Writer

__all__ = [
    "FIGURES",
    "PREDICTORS",
    "TASKS",
    "Alignment",
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
    "Settling",
    "Task",
    "TextEvaluation",
    "Translation",
    "Translator",
    "Writer",
    "annotations_of",
    "create_task",
    "features_of",
    "nearest_neighbours",
    "parts_of",
    "preprocessing_of",
    "pretrained_predictor",
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
