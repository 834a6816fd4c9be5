"""A whole pre-norm block in one call: between streamed weights, every return to Python costs as much as a product."""

from typing import Any

import numba
import numpy as np

from groundup.generation.few_rows.kernels.attention import attention_step
from groundup.generation.few_rows.kernels.feed_forward import mlp_step
from groundup.generation.few_rows.kernels.numbers import add, normalise


@numba.njit(cache=True)
def block_step(norms: Any, eps: Any, attention: Any, mlp: Any, call: Any, x: Any, like: Any) -> None:
    """Let x become x + attention(norm1(x)), then x + mlp(norm2(x)): (B, D), in place.

    Args:
        norms: (kind, address of the weight, of the bias) of both norms.
        eps: of both.
        attention: the first five arguments of `attention_step`.
        mlp: the first three of `mlp_step`.
        call: what `attention_step` needs of this call: turned, slots, cache, size.
        x: the residual stream, float32.
        like: see the package.
    """
    h, y = np.empty_like(x), np.empty_like(x)
    first, second = norms
    normalise(first[0], first[1], first[2], eps[0], x, h)
    weights, head_norms, shape, form, heads = attention
    turned, slots, cache, size = call
    attention_step(weights, head_norms, shape, form, heads, h, y, turned, slots, cache, size, like)
    add(x, y)
    normalise(second[0], second[1], second[2], eps[1], x, h)
    mlp_step(mlp[0], mlp[1], mlp[2], h, y, like)
    add(x, y)
