"""Ops in C++, one in each file: compiled on first use; without a compiler, PyTorch does the same."""

from regard.ops.native.library import NativeState, load_library

__all__ = ["NativeState", "load_library"]
