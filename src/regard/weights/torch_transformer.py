"""`torch.nn.Transformer`: its names, and where each tensor goes."""

from collections.abc import Mapping

from torch import Tensor

from regard.weights.name_map import NameMap, Split, renamed


def torch_names(prefix: str = "") -> NameMap:
    """The layers of torch's Transformer, and of what was made after it, under `prefix` (a pattern)."""
    layer = rf"{prefix}(encoder|decoder)\.layers\.(\d+)\."
    decoder = rf"{prefix}decoder\.layers\.(\d+)\.multihead_attn\."
    return {
        layer + r"linear([12])\.(weight|bias)": r"\1.layers.\2.mlp.fc\3.\4",
        layer + r"norm(\d)\.(weight|bias)": r"\1.layers.\2.skip\3.norm.\4",
        layer + r"self_attn\.in_proj_(weight|bias)": r"\1.layers.\2.mixer.qkv.\3",
        layer + r"self_attn\.out_proj\.(weight|bias)": r"\1.layers.\2.mixer.proj.\3",
        decoder + r"in_proj_(weight|bias)": Split(
            r"decoder.layers.\1.cross.q.\2", r"decoder.layers.\1.cross.k.\2", r"decoder.layers.\1.cross.v.\2"
        ),
        decoder + r"out_proj\.(weight|bias)": r"decoder.layers.\1.cross.proj.\2",
        rf"{prefix}(encoder|decoder)\.norm\.(weight|bias)": r"\1.norm.\2",
    }


def from_torch_transformer(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a `torch.nn.Transformer` as that of a `regard.models.Transformer`, without its embeddings.

    `model.load_state_dict(found, strict=False)` then leaves the embeddings alone; `model.encoder` and `model.decoder`
    take the parts under their names. torch's model has a norm behind either stack, so build ours with pre-norm, or
    with `final_norm=True`. RegardError names what has no place here.
    """
    return renamed(state, torch_names(), "torch.nn.Transformer")
