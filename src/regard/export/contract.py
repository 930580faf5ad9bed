"""What an exported file says of itself: one JSON text, under one key, inside the file.

It has the keys of a run's metadata.json that a prediction needs, so that the same predictors read both.
"""

import json
from collections.abc import Mapping
from typing import Any

from regard.errors import RegardError, shown
from regard.reading import parse_json

KEY = "regard"
SCHEMA = 1
"""Of the contract. A reader takes its own and older ones."""
MOST_CHARACTERS = 16 * 2**20
"""Of the text: ImageNet's 21,000 classes take 1 MB."""

MOST_IN_A_BATCH = 4096

# Names of the graph's input and outputs.
PIXELS, IMAGES = "pixels", "images"
LOGITS, PROBABILITIES = "logits", "probabilities"
QUERY_LOGITS, QUERY_BOXES = "query_logits", "query_boxes_cxcywh"
BOXES, SCORES, LABELS, COUNT = "boxes_xyxy", "scores", "labels", "num_detections"

CLASSIFICATION, DETECTION = "classification", "detection"
OUTPUTS = {
    CLASSIFICATION: (PROBABILITIES, LOGITS),
    DETECTION: (BOXES, SCORES, LABELS, COUNT, QUERY_LOGITS, QUERY_BOXES),
}
PIXEL_KINDS = {"uint8": PIXELS, "float": IMAGES}

_NEEDED = {
    "task": str,
    "producer": str,
    "precision": str,
    "model": Mapping,
    "class_names": list,
    "preprocessing": Mapping,
    "input": Mapping,
}


def text_of(metadata: Mapping[str, Any]) -> str:
    """The JSON text of a contract."""
    return json.dumps({"schema": SCHEMA, **metadata}, ensure_ascii=True)


def contract_of(text: str | None, where: str) -> dict[str, Any]:
    """The contract in a file. RegardError, which begins with `where`: none there, too long, newer, or incomplete."""
    if text is None:
        raise RegardError(
            f"{where}: is no file of `regard export` (its metadata have no key {KEY!r}); export a run with "
            "`regard export RUN --to onnx`"
        )
    if len(text) > MOST_CHARACTERS:
        raise RegardError(f"{where}: its metadata have {len(text):,} characters; at most {MOST_CHARACTERS:,} are read")
    values = parse_json(text, f"{where}: metadata")
    if not isinstance(values, dict) or type(values.get("schema")) is not int:
        raise RegardError(f"{where}: its metadata state no schema")
    if values["schema"] > SCHEMA:
        raise RegardError(
            f"{where}: was written by a newer Regard (schema {shown(values['schema'])}; this one reads {SCHEMA}): "
            "pip install -U regard"
        )
    for key, kind in _NEEDED.items():
        if not isinstance(values.get(key), kind):
            raise RegardError(f"{where}: its metadata lack {key!r}, or it is no {_KINDS[kind]}")
    if values["task"] not in OUTPUTS:
        raise RegardError(f"{where}: its task is {shown(values['task'])}; it must be one of {', '.join(OUTPUTS)}")
    if values["input"].get("kind") not in PIXEL_KINDS:
        raise RegardError(f"{where}: its metadata: input.kind must be one of {', '.join(PIXEL_KINDS)}")
    batch = values["input"].get("batch")
    if batch is not None and (type(batch) is not int or not 1 <= batch <= MOST_IN_A_BATCH):
        raise RegardError(f"{where}: its metadata: input.batch is {shown(batch)}; it must be 1 to {MOST_IN_A_BATCH:,}")
    if values["task"] == DETECTION and values.get("scores") not in ("sigmoid", "softmax"):
        raise RegardError(
            f"{where}: its metadata: scores must be sigmoid or softmax, got {shown(values.get('scores'))}"
        )
    return values


_KINDS = {str: "text", Mapping: "table", list: "list"}
