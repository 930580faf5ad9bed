"""Which precisions a device computes fast."""

import torch


def has_bf16(device: torch.device) -> bool:
    """Whether a device multiplies matrices of bfloat16 by instructions of its own."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
