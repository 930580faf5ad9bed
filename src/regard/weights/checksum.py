"""A checksum in the header of a safetensors file: a flipped bit is seen when the weights are read, not in answers."""

import zlib
from collections.abc import Mapping

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
