"""Other libraries' weights under Regard's names."""

from regard.weights.torch_transformer import from_torch_transformer

__all__ = ["from_torch_transformer"]
