"""Files of weights, damaged and made to harm: a model with weights, or one line; nothing is run, memory is bounded."""

import argparse
import contextlib
import io
import json
import os
import pickle
import random
import resource
import struct
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save

import regard
from regard.errors import RegardError
from regard.models import ViT, ViTConfig
from regard.weights import written_as

SIZES = {"img_size": 8, "patch_size": 4, "num_classes": 3, "embed_dim": 8, "depth": 1, "num_heads": 2}


def saved(values, **options) -> bytes:
    stream = io.BytesIO()
    torch.save(values, stream, **options)
    return stream.getvalue()


def packed(arrays, write=np.savez) -> bytes:
    stream = io.BytesIO()
    write(stream, **arrays)
    return stream.getvalue()


def files(model) -> dict[str, bytes]:
    """A file of each kind, by its ending and a name."""
    timms, googles = (written_as(model.state_dict(), kind, num_heads=2) for kind in ("timm", "google"))
    arrays = {name: tensor.numpy() for name, tensor in googles.items()}
    training = {
        "state_dict": timms,
        "state_dict_ema": {f"module.{name}": tensor for name, tensor in timms.items()},
        "args": argparse.Namespace(lr=0.1),
        "metric": np.float64(3),
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]},
    }
    return {
        "a.safetensors": save({name: tensor.contiguous() for name, tensor in timms.items()}),
        "b.pth.tar": saved(training),
        "c.bin": saved(timms, _use_new_zipfile_serialization=False),
        "d.npz": packed(arrays),
        "e.npz": packed(arrays, np.savez_compressed),
    }


def damaged(data: bytes, random_) -> bytes:
    """Flipped, cut, doubled or inserted bytes; the beginning and the end, where headers are, more often."""
    found = bytearray(data)
    for _ in range(random_.choice([1, 1, 2, 8])):
        area = random_.choice([len(found), min(len(found), 400)])
        place = random_.randrange(area) if random_.random() < 0.7 else max(0, len(found) - 1 - random_.randrange(area))
        kind = random_.randrange(5)
        if kind == 0:
            found[place] ^= 1 << random_.randrange(8)
        elif kind == 1:
            del found[place:]
        elif kind == 2:
            del found[place : place + random_.randrange(1, 40)]
        elif kind == 3:
            found[place:place] = random_.randbytes(random_.randrange(1, 40))
        else:
            found[place : place + 8] = struct.pack("<q", random_.choice([-1, 2**31, 2**40, 2**63 - 1, 0]))
        if not found:
            break
    return bytes(found)


def edited_header(data: bytes, random_) -> bytes:
    """A safetensors file with a lie in its header."""
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    name = random_.choice(list(header))
    if name == "__metadata__" or random_.random() < 0.2:
        header[random_.choice(["x\n\x1b[31m", "head.weight", "__metadata__"])] = random_.choice([3, {}, {"a": "b"}])
    else:
        key = random_.choice(["dtype", "shape", "data_offsets"])
        hostile = {
            "dtype": ["F64", "BOOL", "I64", "F8_E4M3", "F4", "C64", "X", 3],
            "shape": [[], [0], [-1], [10**6, 10**6], [2**63], ["a"], None, [1] * 1000],
            "data_offsets": [[0, 0], [0, 10**12], [8, 0], [-1, 3], [], None],
        }
        header[name][key] = random_.choice(hostile[key])
    text = json.dumps(header).encode()
    if random_.random() < 0.2:
        text = text.replace(b'"dtype"', b'"dtype": "F32", "dtype"', 1)
    return struct.pack("<Q", len(text)) + text + body


class Evil:
    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile_pickle(data: bytes, marker: str, random_) -> bytes:
    """A checkpoint whose pickle calls something, asks for memory, or is made of operations in any order."""
    function, arguments = random_.choice(
        [
            (os.system, (f"touch {marker}",)),
            (os.mkdir, (marker,)),
            (open, (marker, "w")),
            (exec, (f"open({marker!r}, 'w')",)),
            (eval, (f"open({marker!r}, 'w')",)),
            (bytearray, (10**11,)),
            (torch.Tensor, (10**11,)),
            (argparse.Namespace, ()),
        ]
    )
    made = pickle.dumps({"head.weight": Evil(function, *arguments)}, 2)
    if random_.random() < 0.5:
        operations = [
            b"\x80\x02",
            b"}",
            b"]",
            b"(",
            b"u",
            b"s",
            b"e",
            b"a",
            b"R",
            b"b",
            b"\x81",
            b"0",
            b"t",
            b"\x85",
            b"N",
        ]
        made = b"\x80\x02" + b"".join(random_.choices(operations, k=12)) + made[2:]
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, made if entry.filename.endswith("data.pkl") else old.read(entry))
    return random_.choice([stream.getvalue(), stream.getvalue(), made])


@pytest.mark.filterwarnings("ignore")
def test_no_file_of_weights_gives_a_traceback_runs_code_or_takes_the_memory(fuzz_cases, tmp_path):
    marker = tmp_path / "ran"
    model = ViT(ViTConfig(**SIZES))
    whole = files(model)
    for name, data in whole.items():
        (tmp_path / name).write_bytes(data)
        regard.load_weights(model, tmp_path / name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in fuzz_cases:
        random_ = random.Random(seed)
        for name, data in whole.items():
            kinds = [damaged, damaged]
            kinds += [edited_header] * 2 if name == "a.safetensors" else []
            kinds += [lambda data, r: hostile_pickle(data, str(marker), r)] if name == "b.pth.tar" else []
            (tmp_path / name).write_bytes(random_.choice(kinds)(data, random_))
            with contextlib.suppress(RegardError):
                regard.load_weights(model, tmp_path / name)
                assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
                continue
            with pytest.raises(RegardError, match=r"\A[^\n\x1b]{1,5000}\Z"):
                regard.load_weights(model, tmp_path / name)
        assert not marker.exists()
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 500
