"""The tests' own checker of shapes is at work, here where tests are about shapes."""

import jaxtyping
import pytest
import torch

from regard.ops import attention


def test_a_wrong_shape_is_an_error_here():
    q, k, v = torch.randn(2, 3, 5, 7), torch.randn(2, 3, 11, 7), torch.randn(2, 3, 13, 7)
    with pytest.raises(jaxtyping.TypeCheckError):
        attention(q, k, v)
