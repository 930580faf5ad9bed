"""`regard.features` and `regard features`: what a model sees in the images of an address, for other tools."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch.testing import assert_close

import regard
from regard.cli.main import main
from regard.data import DigitScenes  # noqa: F401
from regard.errors import RegardError

RUNS = Path(__file__).parents[2] / "golden_runs"
