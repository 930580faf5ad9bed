"""What is written in C++: one file an op, compiled on first use, and never needed."""

from regard.ops.native.library import NativeState, load_library

__all__ = ["NativeState", "load_library"]
