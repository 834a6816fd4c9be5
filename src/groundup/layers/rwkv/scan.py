"""Linear recurrences without a loop over all tokens.

T tokens are laid out as sqrt(T) blocks of sqrt(T). All blocks run at once, each from nothing; then what each leaves is
carried to the next; then every token gets its share of what was carried: 2 sqrt(T) short steps in place of T. Products
of decays are only ever taken forwards, so nothing is divided and nothing overflows.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Binary = Callable[[Tensor, Tensor], Tensor]


def scan(decay: Tensor, x: Tensor, first: Tensor, times: Binary = torch.mul, plus: Binary = torch.add) -> Tensor:
    """h_t = plus(times(decay_t, h_{t-1}), x_t) with h_{-1} = first.

    Args:
        decay: (..., T, D), broadcastable to x in the dimensions before T.
        x: (..., T, D).
        first: (..., D).
        times: what a decay does; with `plus` (mul, add) it is a linear recurrence, (add, maximum) finds the largest of
            all earlier x after their decays. It distributes over `plus`; both are associative.
        plus: how two are joined.

    Returns:
        (..., T, D), no gradient.
    """
    num_tokens = x.shape[-2]
    size = math.isqrt(num_tokens - 1) + 1
    h, decay = _blocks(x, size), _blocks(decay, size)  # (..., blocks, size, D)
    through = decay  # what is left, at each token, of what stood before its block
    for i in range(1, size):
        h[..., i, :] = plus(times(decay[..., i, :], h[..., i - 1, :]), h[..., i, :])
        through[..., i, :] = times(decay[..., i, :], through[..., i - 1, :])
    carry = [first]
    for block in range(h.shape[-3] - 1):
        carry.append(plus(times(through[..., block, -1, :], carry[-1]), h[..., block, -1, :]))
    h = plus(times(through, torch.stack(carry, -2).unsqueeze(-2)), h)
    return h.flatten(-3, -2)[..., :num_tokens, :]


def _blocks(x: Tensor, size: int) -> Tensor:
    """A copy in blocks of `size` tokens, zeros behind the last. (..., T, D) -> (..., blocks, size, D)"""
    behind = -x.shape[-2] % size
    x = F.pad(x, (0, 0, 0, behind)) if behind else x.clone(memory_format=torch.contiguous_format)
    return x.unflatten(-2, (-1, size))


class _LinearScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, decay: Tensor, x: Tensor, first: Tensor) -> Tensor:
        h = scan(decay, x, first)
        ctx.save_for_backward(decay, first, h)
        return h

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        decay, first, h = ctx.saved_tensors
        # g_t = grad_t + decay_{t+1} g_{t+1}: the same recurrence, from right to left
        later = F.pad(decay[..., 1:, :], (0, 0, 0, 1)).flip(-2)
        g = scan(later, grad.flip(-2), torch.zeros_like(first)).flip(-2)
        before = torch.cat((first.unsqueeze(-2), h[..., :-1, :]), dim=-2)
        return (g * before).sum_to_size(decay.shape), g, (decay[..., 0, :] * g[..., 0, :]).sum_to_size(first.shape)


def linear_scan(decay: Tensor, x: Tensor, first: Tensor) -> Tensor:
    """h_t = decay_t * h_{t-1} + x_t with h_{-1} = first, with gradients; see `scan`.

    (..., T, D), (..., T, D), (..., D) -> (..., T, D)
    """
    if x.shape[-2] == 1:
        return decay * first.unsqueeze(-2) + x
    return _LinearScan.apply(decay, x, first)  # type: ignore[return-value]
