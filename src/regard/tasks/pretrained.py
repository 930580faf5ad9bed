"""Predictors of pretrained models, with the preprocessing and the classes that their weights came with."""

from torch import nn

from regard.data import DetectionPreprocessing
from regard.models import DETR, ViT
from regard.tasks.classification.predictor import Classifier
from regard.tasks.detection.predictor import Detector
from regard.tasks.preprocessing import preprocessing_of
from regard.weights import class_names, pretrained


def pretrained_predictor(name: str, model: nn.Module) -> Classifier | Detector:
    """The predictor of a catalogue entry. RegardError for one that gives features and no classes."""
    entry = pretrained(name)
    names = class_names(entry.classes)
    if isinstance(model, DETR):
        shape = DetectionPreprocessing(
            shortest=entry.img_size, longest=1333, channels=3, mean=entry.mean, std=entry.std
        )
        return Detector(model, names, tuple(range(len(names))), shape)
    assert isinstance(model, ViT)  # the catalogue's other entries have no classes
    return Classifier(model, names, preprocessing_of(name, img_size=(entry.img_size,) * 2, channels=3))
