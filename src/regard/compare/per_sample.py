"""What a trained model makes of each test sample: the arrays of a cell's `test.npz`, which statistics are made of.

id      a hash of the sample's name, so that contenders are compared sample by sample
score   what its mean over samples is the metric, or stands for it:
            classification, pairs   1 where right, 0 where not
            text                    bits per byte of a window, with the mean length of all windows
            AP, mAP                 pseudo-values of groups of images (jackknife.py), with one id for each group
label, prediction, right, log_loss  of images with one class
"""

import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from regard.compare.jackknife import groups, pseudo_values
from regard.data import data_root, relative_name
from regard.errors import RegardError
from regard.files import write_whole
from regard.tasks import (
    ClassificationTask,
    DetectionEvaluation,
    DetectionTask,
    Evaluation,
    MultiLabelEvaluation,
    NextTokenTask,
    PairEvaluation,
    Seq2SeqTask,
    Task,
    TextEvaluation,
)

Arrays = dict[str, NDArray[Any]]


def results_of(task: Task, shards: Sequence[Any]) -> Arrays:
    """The arrays of an evaluation, given by the shards of all processes."""
    found = type(shards[0]).joined(shards)
    if isinstance(found, MultiLabelEvaluation):
        return _of_labels(found, _root(task))
    if isinstance(found, Evaluation):
        return _of_classes(found, _root(task))
    if isinstance(found, DetectionEvaluation):
        return _of_boxes(found, _root(task))
    if isinstance(found, PairEvaluation):
        right = [ours == theirs for ours, theirs in zip(found.predictions, found.references, strict=True)]
        return {"id": _ids(found.names, _root(task)), "score": np.array(right, dtype=np.uint8)}
    assert isinstance(found, TextEvaluation)
    bits = np.array(found.windows) * (len(found.windows) / (math.log(2) * found.num_bytes))
    return {"id": np.arange(len(bits), dtype=np.uint64), "score": bits}


def evaluated(task: Task, predictor: Any) -> list[Any]:
    """The evaluation of a finished run on the test part of its data, as the shards of one process."""
    workers = task.recipe.data.num_workers
    if isinstance(task, Seq2SeqTask):
        return [predictor.evaluate(task.data.val, bleu_tokenize=task.data.bleu_tokenize, num_workers=workers)]
    if isinstance(task, NextTokenTask):
        return [predictor.evaluate(task.data.val)]
    assert isinstance(task, ClassificationTask | DetectionTask)
    source = task.data.val if isinstance(task, ClassificationTask) else task.val
    return [predictor.evaluate(source, num_workers=workers, on_bad_image=task.recipe.data.on_bad_image)]


def num_test(task: Task) -> int:
    """How many samples a verdict is made of; for AP the number of groups of images."""
    if isinstance(task, NextTokenTask):
        tokens = len(task.tokenizer.encode(task.data.val)) + 1
        stride = max(task.config.context // 2, 1)
        return len(range(0, max(tokens - 1 - (task.config.context - stride), 1), stride))
    return len(task.val) if isinstance(task, DetectionTask) else len(task.data.val)


def is_mean(task: Task) -> bool:
    """Whether the metric is a mean over samples."""
    return not isinstance(task, DetectionTask) and task.main_metric != "map"


def _of_classes(found: Evaluation, root: str) -> Arrays:
    best = found.logits.topk(1).indices[:, 0]
    right = (best == found.labels) & found.logits.isfinite().all(1)  # as the accuracy counts
    losses = F.cross_entropy(found.logits.double(), found.labels, reduction="none")
    return {
        "id": _ids(found.names, root),
        "label": found.labels.numpy(),
        "prediction": best.numpy(),
        "right": right.numpy().astype(np.uint8),
        "log_loss": losses.float().numpy(),
        "score": right.numpy().astype(np.uint8),
    }


def _of_labels(found: MultiLabelEvaluation, root: str) -> Arrays:
    ids = _ids(found.names, root)

    def score(left: NDArray[np.intp]) -> float:
        index = torch.from_numpy(left)
        names = tuple(found.names[i] for i in left.tolist())
        return replace(found, logits=found.logits[index], labels=found.labels[index], names=names).metrics()["map"]

    return _of_groups(score, ids)


def _of_boxes(found: DetectionEvaluation, root: str) -> Arrays:
    ids = _ids([one.name for one in found.found], root)

    def score(left: NDArray[np.intp]) -> float:
        kept = left.tolist()
        return replace(
            found,
            found=tuple(found.found[i] for i in kept),
            objects=tuple(found.objects[i] for i in kept),
            image_ids=tuple(found.image_ids[i] for i in kept),
            raw=None,
        ).figures()["ap"]

    return _of_groups(score, ids)


def _of_groups(score: Any, ids: NDArray[np.uint64]) -> Arrays:
    """Pseudo-values; none where there are fewer images than groups."""
    try:
        split = groups(len(ids))
    except RegardError:
        return {"id": np.empty(0, dtype=np.uint64), "score": np.empty(0)}
    of_group = [_hash(",".join(str(ids[i]) for i in sorted(part.tolist()))) for part in split]
    return {"id": np.array(of_group, dtype=np.uint64), "score": pseudo_values(score, len(ids))}


def _root(task: Task) -> str:
    return data_root(task.data.address)


def _ids(names: Sequence[str], root: str) -> NDArray[np.uint64]:
    return np.array([_hash(relative_name(name, root)) for name in names], dtype=np.uint64)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def write_arrays(file: Path, arrays: Arrays) -> str:
    """Writes an .npz whose bytes follow from the arrays alone, and returns their hash."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    data = buffer.getvalue()
    write_whole(file, lambda beside: beside.write_bytes(data))
    return digest_of(data)


def read_arrays(file: Path, digest: str) -> Arrays:
    """RegardError for a file that is gone, or not as it was written."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise RegardError(f"{file}: cannot be read: {error.strerror or error}") from None
    if digest_of(data) != digest:
        raise RegardError(f"{file}: is not as it was written")
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def digest_of(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
