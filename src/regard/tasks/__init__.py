"""Each task owns its data, its loss, its metrics, and what a trained model of it is used with.

The files, in the order in which a run meets them:

    task.py               what the training loop asks of a task: model, order, batches, loss, evaluation, metadata
    TASK/task.py          how one task does it: classification, detection, seq2seq (text to text), next_token
    TASK/predictor.py     a trained model in use: `predict` or `generate`, and `evaluate` over a data set
    TASK/result.py        what it gives for one input: Prediction, Detections, Translation, ...
    TASK/metrics.py       an evaluation: predictions beside the truth; its shards join; its metrics
    predictor.py          the base of all predictors: device, `from_metadata`, one input or many
    image_predictor.py    the base of the two that take images: paths, Pillow images, arrays, tensors; class names
    text_metrics.py       bits per byte and perplexity
    facts.py              what opened data are like, and which settings suit them, without decoding an image
    features/             features of frozen models, computed once and kept on the disk; compared (k-NN)
    classification/cached.py    a head that learns from them
    labelling/            predictions as annotations, to be corrected and trained on
    video.py              predictions on the frames of a video
    classification/multi_label.py    images with several classes: their evaluation; calibration.py: which classes count
    thresholds.py         from which score on an answer counts
    pretraining/          images without labels teach a model: a teacher's features, hidden patches
    opened_images.py      images without boxes, opened as a recipe says; the columns that it names
    weights.py            names and hashes of the weights that a recipe starts from, in the place of `auto`
    pretrained.py         predictors of the catalogue's weights (their preprocessing: preprocessing.py)

The rooms of the five tasks do not import each other. A run of pre-training is used as one of classification, with its
teacher's classes or with none.
"""

from regard.recipes import Recipe
from regard.tasks.classification.calibration import LabelThresholds
from regard.tasks.classification.metrics import ClassFigures, Evaluation
from regard.tasks.classification.multi_label import LabelFigures, MultiLabelEvaluation
from regard.tasks.classification.predictor import Classifier
from regard.tasks.classification.result import Prediction
from regard.tasks.classification.task import ClassificationTask
from regard.tasks.detection.calibration import Calibration
from regard.tasks.detection.data_ids import DataIds
from regard.tasks.detection.metrics import FIGURES, ClassAP, DetectionEvaluation, PrecisionRecall
from regard.tasks.detection.operating_points import OperatingPoint, operating_points
from regard.tasks.detection.predictor import NMS, Detector
from regard.tasks.detection.result import BoxRefinement, Detections
from regard.tasks.detection.task import DetectionTask, annotations_of, splits_of
from regard.tasks.facts import Facts, first_words, quick_facts, sizes_of
from regard.tasks.features.neighbours import features_of, nearest_neighbours
from regard.tasks.next_token.metrics import TextEvaluation
from regard.tasks.next_token.predictor import Writer
from regard.tasks.next_token.task import NextTokenTask
from regard.tasks.opened_images import csv_options
from regard.tasks.predictor import Predictor
from regard.tasks.preprocessing import preprocessing_of
from regard.tasks.pretrained import pretrained_predictor
from regard.tasks.pretraining.evaluation import PretrainingEvaluation, linear_head
from regard.tasks.pretraining.task import PretrainingTask
from regard.tasks.seq2seq.metrics import GroupFigures, PairEvaluation
from regard.tasks.seq2seq.predictor import Translator
from regard.tasks.seq2seq.result import Alignment, Translation
from regard.tasks.seq2seq.task import Seq2SeqTask
from regard.tasks.task import Task
from regard.tasks.weights import with_weights_named

__all__ = [
    "FIGURES",
    "NMS",
    "PREDICTORS",
    "TASKS",
    "Alignment",
    "BoxRefinement",
    "Calibration",
    "ClassAP",
    "ClassFigures",
    "ClassificationTask",
    "Classifier",
    "DataIds",
    "DetectionEvaluation",
    "DetectionTask",
    "Detections",
    "Detector",
    "Evaluation",
    "Facts",
    "GroupFigures",
    "LabelFigures",
    "LabelThresholds",
    "MultiLabelEvaluation",
    "NextTokenTask",
    "OperatingPoint",
    "PairEvaluation",
    "PrecisionRecall",
    "Prediction",
    "Predictor",
    "PretrainingEvaluation",
    "PretrainingTask",
    "Seq2SeqTask",
    "Task",
    "TextEvaluation",
    "Translation",
    "Translator",
    "Writer",
    "annotations_of",
    "create_task",
    "csv_options",
    "features_of",
    "first_words",
    "linear_head",
    "nearest_neighbours",
    "operating_points",
    "preprocessing_of",
    "pretrained_predictor",
    "quick_facts",
    "sizes_of",
    "splits_of",
    "with_weights_named",
]

TASKS: dict[str, type[Task]] = {
    "classification": ClassificationTask,
    "detection": DetectionTask,
    "pretraining": PretrainingTask,
    "seq2seq": Seq2SeqTask,
    "next-token": NextTokenTask,
}
PREDICTORS: dict[str, type[Predictor]] = {
    "classification": Classifier,
    "detection": Detector,
    "seq2seq": Translator,
    "next-token": Writer,
}


def create_task(recipe: Recipe) -> Task:
    """The task that a recipe names, with its data opened, and with names and hashes where the recipe says `auto`."""
    return TASKS[recipe.task](with_weights_named(recipe))
