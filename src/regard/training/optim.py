"""AdamW, and the moving average of the weights."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from regard.models import ViT
from regard.recipes import TrainSection

Tensors = tuple[Tensor, ...] | list[Tensor]


def create_optimizer(model: nn.Module, train: TrainSection) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2017) that decays the matrices of linear maps, convolutions and recurrent layers.

    Norms, biases, positions, class tokens and relative embeddings do not decay. Each group's `share` is its part of the
    learning rate: a model's `backbone` has `train.backbone_lr` where that is given, and with `train.layer_decay` d a
    ViT's block i of L has d^(L - i), its patches and positions d^(L + 1), as BEiT is fine-tuned (Bao et al. 2021).
    What is frozen is left out.
    """
    decaying = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.Conv2d | nn.LSTM)
        for parameter in module.parameters(recurse=False)
        if parameter.ndim > 1
    }
    share = 1.0 if train.backbone_lr is None else train.backbone_lr / train.lr
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {(True, 1.0): [], (False, 1.0): []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = share if name.startswith("backbone.") else 1.0
            if train.layer_decay != 1 and isinstance(model, ViT):
                part = train.layer_decay ** (model.config.depth + 1 - model.layer_number(name))
            of_group = (id(parameter) in decaying, part)
            groups.setdefault(of_group, []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": train.weight_decay if decays else 0.0, "share": part}
            for (decays, part), parameters in groups.items()
        ],
        lr=train.lr,
        betas=train.betas,
    )


def create_average(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of the weights; buffers are copied.

    The first update takes the weights as they are; then the decay rises to `decay`, as (1 + n) / (10 + n) after n
    updates, so that the start is soon forgotten.
    """

    @torch.no_grad()
    def update(averages: Tensors, current: Tensors, n: Tensor | int) -> None:
        count = float(n)
        torch._foreach_lerp_(list(averages), list(current), 1 - min(decay, (1 + count) / (10 + count)))

    return AveragedModel(model, multi_avg_fn=update)
