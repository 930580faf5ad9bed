"""Trained weights of a DETR, whoever trained it."""

from torch import nn

from regard.weights.load import Loaded, Source, load_weights


def load_detr_weights(model: nn.Module, source: Source, *, reset_head: bool = False) -> Loaded:
    """Loads a file or a state dict under the names of Regard, of the original DETR or of transformers.

    reset_head: leaves the classes as they are in the model, to be learned anew.
    RegardError for a file that cannot be read, another number of classes, and any other tensor that does not fit.
    """
    return load_weights(model, source, classes="reset" if reset_head else "keep")
