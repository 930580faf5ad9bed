"""Every model exports with a free batch, and the exported program equals the model at batches of 1, 2 and 5.

Strictly, and in plain operations. In processes of their own: without the shape checker's decorators.
"""

import subprocess
import sys

import pytest

BEGIN = """
import torch
from torch.export import Dim, export
from torch.testing import assert_close
from regard.mixers import MIXERS
from regard.models import ViTConfig, build, configure

def check(name, model, inputs, strict=True):
    model.eval()
    arguments = inputs(3)
    batch = Dim("batch", min=1, max=64)
    free = tuple({0: batch} for _ in arguments)
    with torch.no_grad():
        program = export(model, arguments, dynamic_shapes=free, strict=strict)
        assert not any("regard" in str(node.target) for node in program.graph.nodes if node.op == "call_function")
        for size in (1, 2, 5):
            torch.manual_seed(size)
            pictures = inputs(size)
            assert_close(program.module()(*pictures), model(*pictures), rtol=1e-4, atol=1e-4)
    print(name)

def images(height, width, channels=3):
    return lambda batch: (torch.randn(batch, channels, height, width),)

def padded(height, width):
    def inputs(batch):
        mask = torch.ones(batch, height, width, dtype=torch.bool)
        mask[0, :, width - 20:] = False
        return torch.randn(batch, 3, height, width), mask
    return inputs

def words(vocabulary, *tokens):
    return lambda batch: tuple(torch.randint(vocabulary, (batch, count)) for count in tokens)

def vit(**changes):
    torch.manual_seed(0)
    sizes = dict(img_size=(16, 24), patch_size=4, num_classes=7, embed_dim=16, depth=1, num_heads=2)
    return build(ViTConfig(**sizes | changes))
"""

CLASS_TOKEN = """
check("class token", vit(), images(16, 24))
"""

VITS = """
every = dict(mixer=tuple(MIXERS), depth=len(MIXERS), mixer_options={"local": {"window": 3}})
check("every mixer", vit(**every, pool="token"), images(16, 24))
check("every mixer, averaged", vit(**every, pool="avg"), images(16, 24))
check("every mixer, not strictly", vit(**every, pool="token"), images(16, 24), strict=False)
vit(**every)(*images(16, 24)(2))  # nothing of the exports is left in a cache
check("two tokens", vit(pool="distilled", num_registers=1, positions="sine"), images(16, 24))
check("another size", vit(pool="token_avg", num_registers=4), images(20, 28))
"""

DETECTORS = """
for name, changes, inputs in [
    ("detr_mini", {"depth": 1, "mixer": "local"}, images(64, 96)),
    ("detr_mini", {"depth": 1}, padded(64, 96)),
    ("dn_detr_mini", {"two_stage": False}, images(64, 96)),
    ("dn_detr_mini", {}, padded(64, 96)),
    ("dn_detr_mini", {"cross_attention": "dense"}, images(64, 96)),
]:
    check(name, build(configure(name, {"decoder_depth": 1} | changes)), inputs)
"""

OTHERS = """
check("SASA-ResNet", build(configure("sasa_resnet14_small", {})), images(16, 16, channels=1))
stem = configure("sasa_resnet14_small", {"stem": "attention", "in_chans": 3, "img_size": 32})
check("attention stem", build(stem), images(32, 32))
check("FNet", build(configure("fnet_base", {"depth": 1, "embed_dim": 16, "vocab_size": 50})), words(50, 12))
language = configure("language_mini", {"depth": 2, "mixer": ("attention", "performer")})
check("language", build(language), words(259, 70))
check("transformer", build(configure("transformer_mini", {"depth": 1, "decoder_depth": 1})), words(259, 12, 7))
check("recurrent", build(configure("recurrent_mini", {})), words(259, 12, 7))
"""


def run(code, count):
    command = [sys.executable, "-c", BEGIN + code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert len(done.stdout.splitlines()) == count


def test_a_class_token():
    run(CLASS_TOKEN, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "count"), [(VITS, 5), (DETECTORS, 5), (OTHERS, 6)], ids=["vits", "detectors", "others"]
)
def test_every_model(code, count):
    run(code, count)
