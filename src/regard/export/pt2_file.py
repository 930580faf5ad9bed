"""PyTorch's own file of a program, .pt2, for ExecuTorch, AOTInductor and other tools that begin with one.

It is read once, where it is verified, by the process that wrote it: PyTorch's reader can run code out of a file. What a
detector reports is not in it; its outputs are the queries.
"""

from pathlib import Path

import numpy as np
import torch

from regard.export.contract import KEY
from regard.export.extras import silent
from regard.export.program import Program


class Pt2Engine:
    """A file that this process has written, in use."""

    name = "pt2"

    def __init__(self, file: Path, program: Program) -> None:
        self.where, self.inputs, self.outputs = str(file), [program.input_name], list(program.output_names)
        with silent():
            self.module = torch.export.load(file).module()

    def run(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        with torch.no_grad():
            found = self.module(torch.from_numpy(pixels))
        return {name: value.numpy() for name, value in zip(self.outputs, found, strict=True)}


def write_pt2(program: Program, file: Path, contract: str) -> None:
    """Writes the program, with its contract among the file's extra files."""
    with silent():
        torch.export.save(program.exported, file, extra_files={KEY: contract})
