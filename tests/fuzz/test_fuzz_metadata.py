"""A stranger's metadata.json or config.json: a mutated one gives a model that works, or one line; never the memory."""

import contextlib
import copy
import json
import random
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import regard
from regard.errors import RegardError
from regard.models import build, configure
from regard.weights import written_as

GOLDEN = Path(__file__).parent.parent / "golden_runs"
TASKS = ("classification", "detection", "seq2seq", "next_token")
DEEP: list = []
for _ in range(150):
    DEEP = [DEEP]
HOSTILE = [
    *(10**9, 10**7, 10**5, 10**400, -1, 0, 1, 2, 3, 7, 1e300, -1e-300, 1e-300, 0.5, float("nan"), float("inf")),
    *(True, False, None, "", "x", "8", "mlp", "local", "\x00\x1b[31m", "a\nb", "x" * 5000, "hf-hub:a/b", "../../x"),
    *([], {}, [[]], DEEP, [1], [8, 8], [-1, 2], [10**9, 10**9], ["a"] * 10, [0] * 10, list(range(10)), ["a"] * 10**4),
    *({"local": {"window": 10**9 + 1}}, {"num_features": 10**8}, {"kind": "bpe", "json": {}}, {"a": {"b": [None]}}),
]


def places(values, path=()):
    """All keys and indices of a table, the deeper ones too."""
    inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


def mutated(values, random_):
    values = copy.deepcopy(values)
    for _ in range(random_.choice([1, 1, 1, 2, 4])):
        everywhere = list(places(values))
        if not everywhere:
            break
        *path, last = random_.choice(everywhere)
        table = values
        for key in path:
            table = table[key]
        kind = random_.random()
        if kind < 0.1:
            del table[last]
        elif kind < 0.2 and isinstance(table, dict):
            table[random_.choice(["xyz", "depth", "mixer", "pool", "padding"])] = random_.choice(HOSTILE)
        elif kind < 0.4:
            table[last] = copy.deepcopy(values)
        else:
            table[last] = random_.choice(HOSTILE)
    return values


def mutated_text(text, random_):
    place = random_.randrange(len(text))
    return random_.choice(
        [
            text[:place],
            text[:place] + random_.choice('{}[],:"\\\x00é9') + text[place + 1 :],
            text.replace("1", "9" * 5000, 1),
            text.replace("1", "NaN", 1),
            '{"model": ' + "[" * 10**5,
            "﻿" + text,
            "[]",
            "3",
        ]
    )


def use(run, task):
    predictor = regard.load(run, device="cpu")
    if task in ("classification", "detection"):
        channels = predictor.preprocessing.channels
        predictor.predict(torch.zeros(channels, 9, 7, dtype=torch.uint8))
    elif task == "seq2seq":
        predictor.max_new_tokens = min(predictor.max_new_tokens, 3)
        predictor.predict("vier")
    else:
        predictor.generate("a", max_new_tokens=2)


def one_line_or_right(action):
    with contextlib.suppress(RegardError):
        action()
        return
    with pytest.raises(RegardError, match=r"\A[^\n\x1b]{1,20000}\Z"):
        action()


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.filterwarnings("ignore")
def test_no_metadata_gives_a_traceback_or_takes_the_memory(fuzz_cases, tmp_path):
    for task in TASKS:
        shutil.copytree(GOLDEN / task, tmp_path / task)
        use(tmp_path / task, task)
    texts = {task: (tmp_path / task / "metadata.json").read_text(encoding="utf-8") for task in TASKS}
    before = megabytes()
    for seed in fuzz_cases:
        random_ = random.Random(seed)
        task = TASKS[seed % len(TASKS)]
        text = texts[task]
        if random_.random() < 0.15:
            text = mutated_text(text, random_)
        else:
            text = json.dumps(mutated(json.loads(text), random_))
        (tmp_path / task / "metadata.json").write_text(text, encoding="utf-8")
        one_line_or_right(lambda task=task: use(tmp_path / task, task))
        if seed % 3 == 0:
            one_line_or_right(lambda task=task: regard.create_model(f"local-dir:{tmp_path / task}"))
            one_line_or_right(lambda task=task: regard.load_weights(torch.nn.Linear(2, 2), tmp_path / task))
    assert megabytes() - before < 1000


@pytest.mark.filterwarnings("ignore")
def test_no_folder_of_timm_gives_a_traceback_or_takes_the_memory(fuzz_cases, tmp_path):
    arguments = {"img_size": [32, 48], "embed_dim": 8, "depth": 2, "num_heads": 2}
    model = build(configure("vit_tiny_patch16_224", {**arguments, "num_classes": 3}))
    save_file(written_as(model.state_dict(), "timm"), tmp_path / "model.safetensors")
    config = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 3,
        "global_pool": "token",
        "model_args": arguments,
        "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 0.9, "interpolation": "bicubic"},
    }

    def use_folder():
        found = regard.create_model(f"local-dir:{tmp_path}")
        regard.transform_for(found)(torch.zeros(found.config.in_chans, 9, 7, dtype=torch.uint8))

    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    use_folder()
    assert np.array_equal(regard.create_model(f"local-dir:{tmp_path}").head.weight.detach(), model.head.weight.detach())
    before = megabytes()
    for seed in fuzz_cases:
        text = json.dumps(mutated(config, random.Random(seed)))
        (tmp_path / "config.json").write_text(text, encoding="utf-8")
        one_line_or_right(use_folder)
    assert megabytes() - before < 1000
