"""torch.compile of whole models, in a process of its own: without the shape checker's decorators."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

BUILD = """
import torch
from torch.testing import assert_close
from regard.models import ViTConfig, build

def tiny(**changes):
    torch.manual_seed(0)
    sizes = dict(img_size=(36, 24), patch_size=12, num_classes=7, embed_dim=20, depth=2, num_heads=5)
    return build(ViTConfig(**sizes, **changes)).eval()

images = torch.randn(2, 3, 36, 24)
"""

COMPILE = """
model = tiny(mixer="attention")
compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
assert_close(compiled(images), model(images), rtol=1e-5, atol=1e-6)
gradients = []
for function in (model, compiled):
    model.zero_grad()
    function(images).square().sum().backward()
    gradients.append([p.grad for p in model.parameters()])
assert all(g.ne(0).any() for g in gradients[0])
assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)
print("equal")
"""


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    return done.stdout, done.stderr


def test_compiled_equals_eager():
    """The whole graph in one piece, values and gradients."""
    out, err = run(BUILD + COMPILE)
    assert out == "equal\n", err
