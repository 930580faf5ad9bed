"""What the tests of explanations share: small models, the largest tensor that was made, and what a page says."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from regard.models import build, configure


def vit(mixer="attention", *, img_size=(12, 20), pool="token", **more):
    config = {"img_size": img_size, "patch_size": 4, "in_chans": 3, "num_classes": 5, "embed_dim": 12, "num_heads": 3}
    config |= {"depth": 3 if isinstance(mixer, str) else len(mixer), "mixer": mixer, "pool": pool, **more}
    torch.manual_seed(0)
    return build(configure("vit_pico_patch2_8", config)).eval()


class Pooled(nn.Module):
    """A backbone without a weight: the mean colour of each 4 × 4 pixels."""

    out_chans, reduction = 3, 4

    def forward(self, images):
        return F.avg_pool2d(images, 4)


def pooled_detr(**more):
    """A DETR whose tokens are the mean colours of squares of 4 pixels."""
    config = {"num_classes": 3, "embed_dim": 24, "num_heads": 3, "depth": 2, "decoder_depth": 3, "num_queries": 6}
    torch.manual_seed(0)
    model = build(configure("detr_mini", {**config, "mlp_ratio": 2.0, **more})).eval()
    model.backbone, model.project = Pooled(), nn.Conv2d(3, model.config.embed_dim, kernel_size=1)
    return model


def shaken(model):
    """In float64, with every parameter random, so that layer scales and class token count."""
    model = model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


class Largest(TorchDispatchMode):
    """The number of values of the largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in torch.utils._pytree.tree_leaves(out):
            if isinstance(one, torch.Tensor):
                self.numel = max(self.numel, one.numel())
        return out


def told(page):
    """What the page says of the view, once all of it is drawn."""
    page.wait_for_selector("html[data-drawn=all]")
    return page.text_content("#told")
