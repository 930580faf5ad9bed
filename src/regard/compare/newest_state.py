"""What the newest state of a run of pre-training still knows: how long its steps took, and the model with its decoder.

A run's weights are those of the model that others take; what teaches it, a decoder or maps to a teacher's features, is
in its states alone.
"""

from torch import nn

from regard.errors import RegardError, one_line
from regard.models import ImageModel, build
from regard.tasks import PretrainingTask
from regard.training import Run
from regard.training.state import DAMAGED, Progress, newest_whole, read_progress
from regard.weights import read_safetensors

AVERAGED = "module."
"""Before the names of averaged weights."""


def progress_of(run: Run) -> Progress | None:
    """How far the newest whole state is; None where there is none."""
    try:
        state = newest_whole(run.path / "state", run.id())
        return None if state is None else read_progress(state, run.id(), with_files=False)
    except RegardError:
        return None


def minutes_at(progress: Progress, step: int) -> float:
    """Minutes of a run up to a step, without evaluations and saving: a step takes as long as the steps' mean."""
    return (progress.prepared_seconds + progress.training_seconds * step / max(progress.step, 1)) / 60


def learner_of(run: Run, task: PretrainingTask) -> nn.Module:
    """The model of a run with its decoder, as the run evaluates it: the average where `train.ema_decay` is on.

    RegardError where the states were deleted, and for one that is damaged.
    """
    state = newest_whole(run.path / "state", run.id())
    if state is None:
        raise RegardError(f"{run.path / 'state'}: is gone, and with it the decoder")
    is_average = bool(task.recipe.train.ema_decay)
    file = state / ("average.safetensors" if is_average else "model.safetensors")
    values = read_safetensors(file)
    if is_average:
        values = {name.removeprefix(AVERAGED): value for name, value in values.items() if name.startswith(AVERAGED)}
    model = build(task.config)
    assert isinstance(model, ImageModel)  # the recipe allows no other
    learner = task.lessons.build(model)
    try:
        learner.load_state_dict(values)
    except RuntimeError as error:
        raise RegardError(f"{file}: {DAMAGED}: {one_line(error)}") from None
    return learner.eval()
