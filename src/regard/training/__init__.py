"""The one training loop, what it optimises with, and the run folder."""

from regard.training.load_run import load_classifier, load_predictor
from regard.training.loop import Standing, train, train_until
from regard.training.machine import is_main_process, machine, memory_above_mb, most_workers, versions
from regard.training.nan_watch import Diverged
from regard.training.origin import CHANGEABLE, Origin, hand_over, origin_of, resumed_recipe
from regard.training.progress import Bar
from regard.training.run import Run, default_run_folder, main_metric
from regard.training.session import Session

__all__ = [
    "CHANGEABLE",
    "Bar",
    "Diverged",
    "Origin",
    "Run",
    "Session",
    "Standing",
    "default_run_folder",
    "hand_over",
    "is_main_process",
    "load_classifier",
    "load_predictor",
    "machine",
    "main_metric",
    "memory_above_mb",
    "most_workers",
    "origin_of",
    "resumed_recipe",
    "train",
    "train_until",
    "versions",
]
