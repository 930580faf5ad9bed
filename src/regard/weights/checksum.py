"""A checksum in the header of a safetensors file: a flipped bit is seen when the weights are read, not in answers."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

CHECKSUM = "regard.checksum"  # its key in the header


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """CRC-32 over names, dtypes, shapes and bytes, in the order of the names; some 2 GB a second."""
    crc = 0
    for name, tensor in sorted(tensors.items()):
        crc = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"


def sort_notes(file: Path) -> None:
    """Puts what the header holds beside the tensors in order: the library writes it in another one each time."""
    with file.open("r+b") as opened:
        size = int.from_bytes(opened.read(8), "little")
        header = opened.read(size)
        start = header.index(b"{", 1)
        end = header.index(b"}", start) + 1
        ordered = json.dumps(json.loads(header[start:end]), sort_keys=True, separators=(",", ":")).encode()
        assert len(ordered) == end - start  # plain letters and digits
        opened.seek(8 + start)
        opened.write(ordered)
