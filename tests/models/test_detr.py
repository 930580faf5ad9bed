"""DETR: equal to the original's outputs, losses and assignments, blind to padding, and linear where its mixer is."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from regard import create_model, swap_mixer
from regard.errors import RegardError
from regard.losses import SetPredictionLoss
from regard.models import DETR, PRESETS, DETRConfig, build
from regard.models.detr import check_pixels
from regard.weights import load_weights

FOLDER = Path(__file__).parents[1] / "goldens" / "detr"
SMALL = {"num_classes": 5, "backbone": "resnet10t", "embed_dim": 32, "num_heads": 4, "depth": 2, "decoder_depth": 2}
LABELS = [torch.tensor([3, 17, 44]), torch.tensor([1])]
BOXES = [
    torch.tensor([[0.5, 0.5, 0.2, 0.3], [0.2, 0.3, 0.1, 0.1], [0.7, 0.6, 0.4, 0.5]]),
    torch.tensor([[0.3, 0.3, 0.3, 0.2]]),
]


def small(**changed: object) -> DETR:
    torch.manual_seed(0)
    return DETR(DETRConfig(**{**SMALL, "num_queries": 7, **changed})).eval()


def real(height: int, width: int, *sizes: tuple[int, int]) -> Tensor:
    """A mask of images of these sizes, padded to height × width."""
    mask = torch.zeros(len(sizes), height, width, dtype=torch.bool)
    for one, (rows, columns) in zip(mask, sizes, strict=True):
        one[:rows, :columns] = True
    return mask


def drawn_weights() -> dict[str, Tensor]:
    """The state dict that the golden outputs were made with; goldens/detr/README.md has the rule."""
    state = {}
    for key, shape in json.loads((FOLDER / "state_dict_shapes.json").read_text(encoding="utf-8")).items():
        n = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape, dtype=np.float32)
        if key.endswith("running_var"):
            n = 1 + 0.1 * abs(n)
        elif key != "query_embed.weight" and len(shape) > 1:
            n = n / np.sqrt(np.prod(shape[1:])) * (3 if "in_proj" in key else 1)
        elif key != "query_embed.weight":
            n = 1 + 0.1 * n if key.endswith("weight") else 0.1 * n
        state[key] = torch.from_numpy(np.asarray(n, dtype=np.float32))
    return state


@pytest.mark.parametrize("name", ["detr_resnet50", "detr_resnet50_dc5"])
def test_outputs_losses_and_assignments_equal_the_originals(name):
    golden = load_file(FOLDER / "golden.safetensors")
    model = build(PRESETS[name]).eval()
    load_weights(model, drawn_weights())
    images = torch.from_numpy(np.random.default_rng(7).random((2, 3, 192, 256), dtype=np.float32))
    mask = real(192, 256, (192, 256), (128, 200))
    images[1] = images[1] * mask[1]
    for grad in (False, True):  # with fused weights that are kept, and with those that learn
        with torch.set_grad_enabled(grad):
            found = model(images, mask)
        assert_close(found.logits[-1], golden[f"{name}.pred_logits"], rtol=0, atol=1e-5)
        assert_close(found.boxes_cxcywh[-1], golden[f"{name}.pred_boxes"], rtol=0, atol=1e-5)
        for layer in range(5):
            assert_close(found.boxes_cxcywh[layer], golden[f"{name}.aux.{layer}.pred_boxes"], rtol=0, atol=1e-5)
    if name != "detr_resnet50":
        return
    losses = SetPredictionLoss(91)(*found, LABELS, BOXES)
    wanted = {key.removeprefix("loss."): value for key, value in golden.items() if key.startswith("loss.loss_")}
    assert wanted.keys() == losses.named.keys()
    for key, value in wanted.items():
        assert_close(losses.named[key], value.reshape(()), rtol=1e-5, atol=1e-5)
    for image in range(2):
        queries, targets = losses.matches.pairs(5, image)
        assert_close(queries, golden[f"match.{image}.query"])
        assert_close(targets, golden[f"match.{image}.target"])


def test_the_papers_sizes():
    """41 M parameters and 60 M (table 1); the first is the original's number, whose frozen norms are no parameters."""
    shapes = json.loads((FOLDER / "state_dict_shapes.json").read_text(encoding="utf-8"))
    norms = (".bn", ".downsample.1.")
    original = sum(int(np.prod(shape)) for key, shape in shapes.items() if not any(part in key for part in norms))
    counts = {}
    for name in ("detr_resnet50", "detr_resnet50_dc5", "detr_resnet101"):
        with torch.device("meta"):
            model = build(PRESETS[name])
        counts[name] = sum(parameter.numel() for parameter in model.parameters())
    assert counts["detr_resnet50"] == counts["detr_resnet50_dc5"] == original
    assert round(original / 1e6) == 42  # of which the paper's 41 has the classes' 23,552 and some rounding
    assert round(counts["detr_resnet101"] / 1e6) == 60


def test_what_stands_in_padding_makes_no_difference_to_the_bit():
    model = small()
    features, mask = torch.randn(2, 512, 5, 7), real(5, 7, (5, 4), (3, 7))
    wanted = model.detect(features, mask)
    for junk in (1e6, float("nan"), float("inf")):
        spoiled = torch.where(mask[:, None], features, torch.full_like(features, junk))
        found = model.detect(spoiled, mask)
        assert torch.equal(found.logits, wanted.logits)
        assert torch.equal(found.boxes_cxcywh, wanted.boxes_cxcywh)


def test_an_image_is_the_same_alone_and_padded():
    """The backbone sees zeros where the padding is, so near its edge nothing is equal; the rest of the model is."""
    model = small()
    features = torch.randn(1, 512, 3, 5)
    padded = torch.zeros(1, 512, 4, 7)
    padded[:, :, :3, :5] = features
    alone = model.detect(features)
    found = model.detect(padded, real(4, 7, (3, 5)))
    assert_close(found.logits, alone.logits, rtol=1e-5, atol=1e-5)
    assert_close(found.boxes_cxcywh, alone.boxes_cxcywh, rtol=1e-5, atol=1e-5)
    assert_close(model.detect(features, real(3, 5, (3, 5))).logits, alone.logits)


def test_permuted_queries_give_permuted_outputs():
    model, images = small(), torch.rand(2, 3, 67, 97)
    wanted = model(images)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    with torch.no_grad():
        model.queries.weight.copy_(model.queries.weight[order].clone())
    found = model(images)
    assert_close(found.logits, wanted.logits[:, :, order], rtol=1e-4, atol=1e-5)
    assert_close(found.boxes_cxcywh, wanted.boxes_cxcywh[:, :, order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mixer", ["attention", "performer", "local"])
@pytest.mark.parametrize("dilated", [False, True])
def test_encoders_with_mixers_learn(mixer, dilated):
    model = small(mixer=mixer, dilated=dilated).train()
    found = model(torch.rand(2, 3, 67, 97), real(67, 97, (67, 61), (41, 97)))
    assert found.logits.shape == (2, 2, 7, 6)
    assert found.boxes_cxcywh.shape == (2, 2, 7, 4)
    labels = [torch.tensor([2]), torch.tensor([0, 4])]
    boxes = [torch.tensor([[0.5, 0.5, 0.3, 0.2]]), torch.tensor([[0.2, 0.6, 0.1, 0.3], [0.7, 0.2, 0.2, 0.2]])]
    SetPredictionLoss(5)(*found, labels, boxes).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_the_configuration_follows_a_swap_of_the_encoders_mixers():
    model = swap_mixer(small(), "performer", [0, 1], options={"num_features": 9})
    again = build(model.config).eval()
    again.load_state_dict(model.state_dict(), strict=True)
    images = torch.rand(2, 3, 67, 97)
    assert again(images).logits.equal(model.eval()(images).logits)
    assert swap_mixer(small(), "performer").config.mixer == ("performer", "performer")  # and the decoder's, unsaid


@pytest.mark.parametrize("mixer", ["fourier", "conv", "lstm"])
def test_a_mixer_that_cannot_serve_says_so(mixer):
    with pytest.raises(RegardError, match=f"{mixer}: does not support"):
        small(mixer=mixer)(torch.rand(2, 3, 67, 97), real(67, 97, (67, 61), (41, 97)))


def test_the_cost_of_a_linear_encoder_is_linear():
    grown = {}
    for mixer in ("attention", "performer", "local"):
        model = small(mixer=mixer, backbone="resnet10t", dilated=True)
        without = model.backbone
        small_one, large = (model.flops(s, s) - without.flops(s, s) for s in (256, 1024))
        grown[mixer] = large / small_one
    assert grown["attention"] > 40
    assert grown["performer"] < 18
    assert grown["local"] < 22


def test_flops_by_hand():
    """32 channels, 4 heads, 7 queries, 5 classes; 64 × 96 pixels are 2 × 3 tokens of 512 channels."""
    model = small(depth=1, decoder_depth=1, mlp_ratio=2.0)
    tokens, queries, dim = 6, 7, 32
    mlp = 2 * 2 * dim * 2 * dim
    project = 2 * tokens * 512 * dim
    encoder = 2 * tokens * 4 * dim**2 + 4 * tokens**2 * dim + tokens * mlp
    own = 2 * queries * 4 * dim**2 + 4 * queries**2 * dim + queries * mlp
    cross = 2 * (2 * queries + 2 * tokens) * dim**2 + 4 * queries * tokens * dim
    heads = 2 * queries * (dim * 6 + dim * dim + dim * dim + dim * 4)
    expected = project + encoder + own + cross + heads
    assert model.flops(64, 96) - model.backbone.flops(64, 96) == expected
    first = model.backbone.body.conv1[0]
    assert model.backbone.flops(64, 96) > 2 * first.weight.numel() * 32 * 48


def test_the_paper_counts_a_multiply_and_an_add_as_one():
    """86 GFLOP for R50 (table 1) on COCO's images, some 800 × 1066 after resizing."""
    with torch.device("meta"):
        model = build(PRESETS["detr_resnet50"])
    assert 80e9 < model.flops(800, 1066) / 2 < 100e9


def test_autocast_and_checkpointing_give_the_same():
    model = small(dropout=0.0).train()
    images = torch.rand(2, 3, 64, 96)
    model.backbone.eval()
    wanted = model(images)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(images)
    assert found.boxes_cxcywh.dtype == torch.float32
    assert_close(found.boxes_cxcywh, wanted.boxes_cxcywh, rtol=0.1, atol=0.05)
    model.gradient_checkpointing = True
    assert_close(model(images).logits, wanted.logits)


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (torch.ones(2, 64, 64, dtype=torch.bool), r"of shape \(2, 64, 96\); got torch.bool \(2, 64, 64\)"),
        (torch.ones(2, 64, 96), "must be bool"),
        (real(64, 96, (64, 96), (0, 0)), "image 1 of the batch has no real pixel"),
    ],
)
def test_a_bad_mask_is_one_line(mask, told):
    with pytest.raises(RegardError, match=told):
        check_pixels(torch.rand(2, 3, 64, 96), mask)


def test_bad_names():
    with pytest.raises(RegardError, match="did you mean 'resnet50'"):
        create_model("detr_mini", backbone="resnet5O")
    with pytest.raises(RegardError, match="cannot be a backbone, dilated"):
        create_model("detr_mini", backbone="vgg11", dilated=True)
    with pytest.raises(RegardError, match=r"model\.embed_dim"):
        create_model("detr_mini", embed_dim=30)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_gives_the_same_losses_and_gradients():
    images, mask = torch.rand(2, 3, 67, 97), real(67, 97, (67, 61), (41, 97))
    labels = [torch.tensor([2]), torch.tensor([0, 4])]
    boxes = [torch.tensor([[0.5, 0.5, 0.3, 0.2]]), torch.tensor([[0.2, 0.6, 0.1, 0.3], [0.7, 0.2, 0.2, 0.2]])]
    found = []
    for device in ("cpu", "cuda"):
        model = small(dropout=0.0).to(device)
        output = model(images.to(device), mask.to(device))
        targets = ([one.to(device) for one in many] for many in (labels, boxes))
        total = SetPredictionLoss(5).to(device)(*output, *targets).total
        total.backward()
        found.append((total.item(), model.queries.weight.grad.cpu()))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-3)
    assert_close(found[1][1], found[0][1], rtol=1e-2, atol=1e-3)
