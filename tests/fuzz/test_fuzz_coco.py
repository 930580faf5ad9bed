"""Mutated COCO files: finite boxes inside of their images, or one line."""

import json
import random
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from regard.data import check_detection, fix_data, open_detection
from regard.errors import RegardError

HEIGHT, WIDTH = 30, 40
ODD: list[Any] = [
    *(None, True, False, "", " ", "x", "1", "1.0", "-1", "nan", "inf", "1e999", "é", "\x00", "a\nb", "\ud800"),
    *(0, 1, -1, 2, 1.5, -0.0, 1e-300, 1e300, 2**31, 2**63, -(2**63), 2**64, 10**400),
    *(float("nan"), float("inf"), -float("inf")),
    *([], [[]], [1], [1, 2, 3, 4], ["1", 2, None, "4"], [1e300] * 4, [[1, 2, 3, 4, 5, 6]], [3] * 50),
    *({}, {"id": 1}, {"counts": "0" * 30, "size": [HEIGHT, WIDTH]}, {"counts": [3, 4], "size": [10**9, 10**9]}),
    *("/etc/passwd", "../x.png", "C:\\x.png", "1.PNG", "train/1.png", "%2e%2e/x.png", "con", "a" * 5000, "{count}"),
]


def sound() -> dict[str, Any]:
    return {
        "info": {"year": 2026},
        "images": [{"id": n, "file_name": f"{n}.png", "width": WIDTH, "height": HEIGHT} for n in range(1, 5)],
        "annotations": [
            {"id": n, "image_id": n % 4 + 1, "category_id": n % 2 + 1, "bbox": [n, 3, 9, 8.5], "area": 70, "iscrowd": 0}
            | {"segmentation": [[n, 3, n + 9, 3, n + 9, 11.5]]}
            for n in range(12)
        ],
        "categories": [{"id": 1, "name": "cat", "supercategory": "pet"}, {"id": 2, "name": "dog"}],
    }


def places(values: Any) -> list[tuple[Any, Any]]:
    """Every (list or object, index or key) within."""
    inner = list(values.items()) if isinstance(values, dict) else list(enumerate(values))
    found: list[tuple[Any, Any]] = [(values, key) for key, _ in inner]
    for _, value in inner:
        if isinstance(value, dict | list):
            found += places(value)
    return found


def mutated(values: Any, draw: random.Random) -> None:
    """One value becomes odd, goes, or takes another's; or an entry is doubled."""
    where, key = draw.choice(places(values))
    match draw.randrange(5):
        case 0 | 1:
            where[key] = deepcopy(draw.choice(ODD))
        case 2:
            del where[key]
        case 3:
            other, at = draw.choice(places(values))
            where[key] = deepcopy(other[at])
        case 4:
            if isinstance(where, list):
                where.append(deepcopy(where[key]))


def written(values: dict[str, Any], draw: random.Random) -> bytes:
    """The file; every fourth has bytes of its own."""
    data = bytearray(json.dumps(values).encode())
    if draw.random() < 0.25:
        for _ in range(draw.randint(1, 6)):
            at = draw.randrange(len(data))
            match draw.randrange(3):
                case 0:
                    data[at] = draw.randrange(256)
                case 1:
                    del data[at : at + draw.randint(1, 20)]
                case 2:
                    data[at:at] = draw.choice([b"[" * 3000, b"{", b"\xff", b"1e9", b"null", b'"', b"-", b"9" * 5000])
    return bytes(data)


@pytest.fixture
def root(tmp_path) -> Path:
    for part in ("train", "val"):
        (tmp_path / "set" / part).mkdir(parents=True)
        for number in range(1, 5):
            Image.new("L", (WIDTH, HEIGHT), number + 10 * len(part)).save(tmp_path / "set" / part / f"{number}.png")
    (tmp_path / "set/annotations").mkdir()
    (tmp_path / "set/annotations/instances_val.json").write_text(json.dumps(sound()))
    return tmp_path / "set"


def require_usable(data: Any) -> None:
    for source in (data.train, data.val):
        assert len(set(source.image_ids)) == len(source.image_ids)
        for (height, width), objects in zip(source.sizes, source.objects, strict=True):
            boxes = objects.boxes_xyxy
            assert boxes.isfinite().all()
            assert objects.areas.isfinite().all()
            assert (boxes >= 0).all()
            assert (boxes[:, 2:] > boxes[:, :2]).all()
            assert (boxes <= torch.tensor([width, height, width, height])).all()
            assert ((objects.labels >= 0) & (objects.labels < len(data.class_names))).all()
    assert all(isinstance(name, str) and name for name in data.class_names)


def one_line(error: BaseException) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 3000


def test_a_mutated_file_is_read_or_refused_in_one_line(fuzz_cases: Iterable[int], root):
    file = root / "annotations" / "instances_train.json"
    for seed in fuzz_cases:
        draw, values = random.Random(seed), sound()
        for _ in range(draw.randint(1, 5)):
            mutated(values, draw)
        file.write_bytes(written(values, draw))
        opened = []
        for setting in ("stop", "skip"):
            try:
                data = open_detection(f"coco:{root}", on_bad_annotation=setting)
            except RegardError as error:
                one_line(error)
            else:
                require_usable(data)
                opened.append(setting)
        assert opened != ["stop"], seed
        if seed % 3:
            continue
        issues, _, _ = check_detection(f"coco:{root}", pixels=seed % 4 == 0)
        for issue in issues:
            assert "\n" not in issue.what + issue.where, seed


def test_one_odd_entry_of_many_never_refuses_the_set(fuzz_cases: Iterable[int], root, tmp_path):
    file = root / "annotations" / "instances_train.json"
    for seed in fuzz_cases:
        draw, values = random.Random(seed), sound()
        which = draw.choice(["images", "annotations", "annotations", "categories"])
        at = draw.randrange(len(values[which]))
        whole = {"entry": values[which][at]}
        mutated(whole, draw)
        values[which][at] = whole.get("entry")
        file.write_text(json.dumps(values))
        data = open_detection(f"coco:{root}", on_bad_annotation="skip")
        require_usable(data)
        if which == "categories":
            continue
        # An image that takes another's id takes it along: nobody knows whose the boxes are.
        assert len(data.train) >= (2 if which == "images" else 4), seed
        assert sum(map(len, data.train.objects)) >= (11 if which == "annotations" else 6), seed
        if seed % 5 == 0:  # and mended it needs no word
            _, address = fix_data(f"coco:{root}", tmp_path / f"mended-{seed}")
            again = open_detection(address)
            assert (again.repairs.healed, again.repairs.left_out) == ({}, {}), seed
            assert list(map(len, again.train.objects)) == list(map(len, data.train.objects)), seed
