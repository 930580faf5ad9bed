"""progress.json, `latest` and metrics.jsonl of any kind: what is whole is read, and the rest is one line."""

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from regard.errors import RegardError
from regard.training.run import read_records
from regard.training.state import newest_whole, read_progress

VALUES = (None, True, -1, 0, 7, 8, 1e300, float("nan"), "8", "x" * 5000, [], [1], {}, {"a": "b"}, "\udcff", 10**30)
# A state of an older version, without checksums.
PROGRESS = {
    "step": 8,
    "seconds": 1.5,
    "training_seconds": 1.0,
    "samples": 512,
    "skipped": [],
    "best": 0.5,
    "best_step": 8,
    "metrics": {"accuracy": 0.5},
    "evaluated_step": 8,
}


def mutated(values: dict, draw: random.Random) -> bytes:
    changed = dict(values)
    for _ in range(draw.choice((1, 1, 2))):
        way = draw.randrange(4)
        key = draw.choice(list(changed))
        if way == 0:
            changed[key] = draw.choice(VALUES)
        elif way == 1:
            del changed[key]
        elif way == 2:
            changed["more"] = draw.choice(VALUES)
    text = bytearray(json.dumps(changed).encode())
    if draw.random() < 0.3:
        text[draw.randrange(len(text))] ^= 1 << draw.randrange(8)
    if draw.random() < 0.1:
        text = text[: draw.randrange(len(text))]
    return bytes(text)


def tried(read: Callable[[], Any]) -> tuple[Any, str]:
    """What was read, or why it was not."""
    try:
        return read(), ""
    except RegardError as error:
        return None, str(error)


def test_any_progress(fuzz_cases, tmp_path):
    state = tmp_path / "state" / "step-8"
    state.mkdir(parents=True)
    for seed in fuzz_cases:
        (state / "progress.json").write_bytes(mutated(PROGRESS, random.Random(seed)))
        progress, told = tried(partial(read_progress, state, None))
        assert "\n" not in told
        assert told or progress.step == 8
        assert told or isinstance(progress.samples, int)


def test_any_pointer(fuzz_cases, tmp_path):
    folder = tmp_path / "run" / "state"
    for step in (4, 8):
        (folder / f"step-{step}").mkdir(parents=True)
        (folder / f"step-{step}" / "progress.json").write_text(json.dumps({**PROGRESS, "step": step}))
    outside = tmp_path / "step-9"
    outside.mkdir()
    (outside / "progress.json").write_text(json.dumps({**PROGRESS, "step": 9}))
    (folder / "step-9").symlink_to(outside)
    names = ("step-8", "step-4", "../../step-9", "/etc", "", "step-", "step--1", "step-08", "step-8/..", "step-\u0663")
    for seed in fuzz_cases:
        draw = random.Random(seed)
        content = bytearray(draw.choice(names).encode())
        if content and draw.random() < 0.5:
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        (folder / "latest").write_bytes(content)
        found, told = tried(partial(newest_whole, folder, None))
        assert found == folder / "step-8" or "it is gone; remove" in told, content


def test_any_metrics(fuzz_cases, tmp_path):
    lines = [
        {"kind": "train", "step": n, "epoch": n / 4, "loss": 1.5, "lr": 0.1, "grad_norm": 1.0} for n in range(1, 9)
    ]
    file = tmp_path / "metrics.jsonl"
    for seed in fuzz_cases:
        draw = random.Random(seed)
        written = [json.dumps(line).encode() for line in lines]
        bad = draw.randrange(8)
        written[bad] = mutated(lines[bad], draw).replace(b"\n", b" ")
        file.write_bytes(b"".join(line + b"\n" for line in written))
        records, unreadable = read_records(file)
        others = [line for number, line in enumerate(lines) if number != bad]
        assert [record for record in records if record in others] == others, seed
        assert len(records) + unreadable == 8
        for record in records:
            assert isinstance(record["step"], int)
            assert isinstance(record["loss"], int | float)


def test_a_half_written_last_line_is_no_fault(tmp_path):
    file = Path(tmp_path / "metrics.jsonl")
    file.write_text('{"kind": "train", "step": 1, "epoch": 0.1, "loss": 2}\n{"kind": "tr', encoding="utf-8")
    assert read_records(file) == ([{"kind": "train", "step": 1, "epoch": 0.1, "loss": 2}], 0)
