"""AdamW, and the moving average of the weights."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from regard.models import ViT
from regard.recipes import ClassificationTrainSection, DetectionTrainSection, TrainSection

Tensors = tuple[Tensor, ...] | list[Tensor]


def create_optimizer(model: nn.Module, train: TrainSection) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2017) that decays the matrices of linear maps, convolutions and recurrent layers.

    Norms, biases, positions, class tokens and relative embeddings do not decay. Frozen parameters are left out.
    A group's `share` is the factor on the learning rate (see `_factor`); the states of runs hold it by this name.
    """
    decaying = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.Conv2d | nn.LSTM)
        for parameter in module.parameters(recurse=False)
        if parameter.ndim > 1
    }
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {(True, 1.0): [], (False, 1.0): []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (id(parameter) in decaying, _factor(name, model, train))
            groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": train.weight_decay if decays else 0.0, "share": factor}
            for (decays, factor), parameters in groups.items()
        ],
        lr=train.lr,
        betas=train.betas,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Gives each group its fraction of `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]


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


def _factor(name: str, model: nn.Module, train: TrainSection) -> float:
    """The factor on the learning rate of the parameter `name`.

    A detector's backbone has `train.backbone_lr` where that is given. With `train.layer_decay` d, block i of a ViT with
    L blocks has d^(L - i), its patch embedding and positions d^(L + 1), as BEiT is fine-tuned (Bao et al. 2021).
    """
    if isinstance(train, DetectionTrainSection) and train.backbone_lr is not None and name.startswith("backbone."):
        return train.backbone_lr / train.lr
    if isinstance(train, ClassificationTrainSection) and train.layer_decay != 1 and isinstance(model, ViT):
        factor: float = train.layer_decay ** (model.config.depth + 1 - model.layer_number(name))
        return factor
    return 1.0
