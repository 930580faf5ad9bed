"""Under autocast everything that mixes tokens trains, on every path, with results of one kind: those of bfloat16."""

import pytest
import torch
from torch.testing import assert_close

from regard.layers import DeformableAttention, Grid, LocalAttention2d, MultiHeadAttention, StemAttention2d
from regard.mixers import MIXERS, create_mixer
from regard.models import ViT, ViTConfig
from regard.ops import attention, favor_attention, fourier_mixing, local_attention, stem_attention

GRID = Grid(5, 6, 1)
DIM = 16


def near(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert found.isfinite().all()
    scale = float(wanted.detach().abs().max())
    assert_close(found.float(), wanted, rtol=0.05, atol=0.05 * scale)


def trained(module: torch.nn.Module, *inputs, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """The output under autocast and without; gradients reach every parameter in its own dtype."""
    plain = module(*inputs, **options)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(*inputs, **options)
    if not [*module.parameters()]:
        return found, plain
    found.float().square().mean().backward()
    for parameter in module.parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()
    return found, plain


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("fused_qkv", [True, False])
def test_every_mixer(name, fused_qkv):
    options = {} if name not in ("attention", "local", "performer") else {"fused_qkv": fused_qkv}
    mixer = create_mixer(name, DIM, num_heads=2, grid=GRID, options=options)
    near(*trained(mixer, torch.randn(2, 31, DIM), grid=GRID))


@pytest.mark.parametrize("prefix", [0, 2])
def test_a_mixer_with_a_mask(prefix):
    """A mask and a prefix take local attention over its dense weights."""
    grid = Grid(5, 6, prefix)
    x, mask = torch.randn(2, 30 + prefix, DIM), torch.rand(2, 30 + prefix) < 0.7
    for name in ("attention", "local", "performer"):
        mixer = create_mixer(name, DIM, num_heads=2, grid=grid)
        near(*trained(mixer, x, grid=grid, mask=mask))


@pytest.mark.parametrize("impl", ["auto", "math", "blocked", "native"])
def test_local_attention_takes_what_autocast_makes(impl):
    """A linear map gives bfloat16, a norm float32: this was read as other numbers, errors of 7.7e37."""
    q, k, v = torch.randn(3, 2, 2, 5, 6, 8)
    more = {"rel_rows": torch.randn(3, 4), "rel_cols": torch.randn(3, 4), "bias": torch.randn(2, 3, 3)}
    wanted = local_attention(q, k, v, window=3, **more, impl="math")
    for mixed in ((q.bfloat16(), k, v), (q, k.bfloat16(), v), (q, k, v.bfloat16()), (q, k, v)):
        with torch.autocast("cpu", torch.bfloat16):
            found = local_attention(*mixed, window=3, **more, impl=impl)
        assert found.dtype == torch.bfloat16
        near(found, wanted)


def test_ops_give_what_pytorchs_own_attention_gives():
    q, k, v = torch.randn(3, 2, 2, 31, 8)
    w, x = torch.randn(16, 8), torch.randn(2, 31, 8)
    exact = [attention(q, k, v), favor_attention(q, k, v, projection=w)]
    with torch.autocast("cpu", torch.bfloat16):
        wanted = torch.nn.functional.scaled_dot_product_attention(q.bfloat16(), k, v).dtype
        for impl in ("math", "sdpa", "auto"):
            found = attention(q.bfloat16(), k, v, impl=impl)
            assert found.dtype == wanted == torch.bfloat16
            near(found, exact[0])
        for impl in ("math", "chunked"):
            found = favor_attention(q, k.bfloat16(), v, projection=w, impl=impl)
            assert found.dtype == torch.bfloat16
            near(found, exact[1])
        for impl in ("math", "fft", "matmul"):  # in float32 whatever autocast says: the sums are long
            assert_close(fourier_mixing(x, impl=impl), torch.fft.fft2(x).real, rtol=1e-4, atol=1e-4)
        stem = stem_attention(
            torch.randn(1, 2, 4, 5, 6).bfloat16(), torch.randn(1, 2, 4, 5, 6), torch.randn(1, 3, 5, 6),
            torch.randn(2, 2, 4, 3), torch.randn(4, 4, 2),
        )  # fmt: skip
        assert stem.dtype == torch.bfloat16
        assert attention(*(part.double() for part in (q, k, v))).dtype == torch.float64


@pytest.mark.parametrize(
    "make",
    [
        lambda: LocalAttention2d(3, 16, num_heads=2, window=3),
        lambda: LocalAttention2d(3, 16, num_heads=2, window=3, border="shift", stride=2),
        lambda: StemAttention2d(3, 16, num_heads=2),
    ],
)
def test_layers_of_images(make):
    near(*trained(make(), torch.randn(2, 3, 7, 8)))


def test_layers_of_sequences():
    x, y = torch.randn(2, 5, DIM), torch.randn(2, 6, DIM)
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    near(*trained(MultiHeadAttention(DIM, 2, bias=False), x, y, y, key_mask=mask))
    layer, reference = DeformableAttention(DIM, 2, num_levels=1), torch.rand(2, 5, 1, 2)
    near(*trained(layer, x, reference, y, [(2, 3)], key_mask=mask))


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_model_with_any_mixer_trains(mixer):
    model = ViT(ViTConfig(img_size=16, patch_size=4, embed_dim=DIM, depth=2, num_heads=2, num_classes=3, mixer=mixer))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    images, labels = torch.randn(6, 3, 16, 16), torch.arange(6) % 3
    losses = []
    for _ in range(5):
        with torch.autocast("cpu", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
