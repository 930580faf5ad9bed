"""`torch.nn.Transformer`: its names, and where each tensor goes."""

import re
from collections.abc import Mapping

from torch import Tensor

from regard.errors import RegardError

# A pattern of torch's names -> the name here, or for a fused matrix the names of its three parts (q, k, v).
_COMMON: dict[str, str | tuple[str, str, str]] = {
    r"linear1\.(weight|bias)": r"mlp.fc1.\1",
    r"linear2\.(weight|bias)": r"mlp.fc2.\1",
    r"norm(\d)\.(weight|bias)": r"skip\1.norm.\2",
    r"self_attn\.in_proj_(weight|bias)": r"mixer.qkv.\1",
    r"self_attn\.out_proj\.(weight|bias)": r"mixer.proj.\1",
}
_CROSS: dict[str, str | tuple[str, str, str]] = {
    r"multihead_attn\.in_proj_(weight|bias)": (r"cross.q.\1", r"cross.k.\1", r"cross.v.\1"),
    r"multihead_attn\.out_proj\.(weight|bias)": r"cross.proj.\1",
}
_LAYERS = {"encoder": _COMMON, "decoder": _COMMON | _CROSS}


def from_torch_transformer(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a `torch.nn.Transformer` as that of a `regard.models.Transformer`, without its embeddings.

    `model.load_state_dict(found, strict=False)` then leaves the embeddings alone; `model.encoder` and `model.decoder`
    take the parts under their names. torch's model has a norm behind either stack, so build ours with pre-norm, or
    with `final_norm=True`. RegardError names what has no place here.
    """
    found: dict[str, Tensor] = {}
    strange = []
    for name, tensor in state.items():
        places = _places(name)
        if not places:
            strange.append(name)
        found |= dict(zip(places, tensor.chunk(len(places)) if places else (), strict=True))
    if strange:
        more = f" and {len(strange) - 6} more" if len(strange) > 6 else ""
        raise RegardError(f"not a state dict of torch.nn.Transformer: it has {', '.join(strange[:6])}{more}")
    return {name: tensor.clone() for name, tensor in found.items()}


def _places(name: str) -> tuple[str, ...]:
    """Where a tensor goes: one name, three for a fused matrix, none for a stranger."""
    if re.fullmatch(r"(en|de)coder\.norm\.(weight|bias)", name):
        return (name,)
    layer = re.fullmatch(r"(encoder|decoder)\.layers\.(\d+)\.(.+)", name)
    if layer is None:
        return ()
    stack, number, rest = layer.groups()
    for pattern, places in _LAYERS[stack].items():
        match = re.fullmatch(pattern, rest)
        if match:
            parts = (places,) if isinstance(places, str) else places
            return tuple(f"{stack}.layers.{number}.{match.expand(part)}" for part in parts)
    return ()
