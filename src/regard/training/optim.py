"""AdamW, and the moving average of the weights."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from regard.recipes import TrainSection

Tensors = tuple[Tensor, ...] | list[Tensor]


def create_optimizer(model: nn.Module, train: TrainSection) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2017) that decays the matrices of linear maps, convolutions and recurrent layers.

    Norms, biases, positions, class tokens and relative embeddings do not decay.
    """
    decaying = [
        parameter
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.Conv2d | nn.LSTM)
        for parameter in module.parameters(recurse=False)
        if parameter.ndim > 1
    ]
    chosen = {id(parameter) for parameter in decaying}
    others = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    groups = [{"params": decaying, "weight_decay": train.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=train.lr, betas=train.betas)


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
