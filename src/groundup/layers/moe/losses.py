"""Auxiliary losses of gates: written as means over tokens, and how they enter the gradient.

A gate adds its loss where its weights are: `with_loss(weights, loss)` returns the weights unchanged and gives the loss
a gradient of 1 in the backward pass. So it reaches the gate on every pipeline stage, whatever the objective is, and
does not show in the reported loss. The training loop sums losses over tokens and divides once, so here too a mean is
multiplied by its number of tokens; `scaled` tells how the loop scales what it differentiates.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_scale = 1.0


@contextlib.contextmanager
def scaled(scale: float) -> Iterator[None]:
    """While this is open: by what a loss summed over tokens is multiplied before it is differentiated, else 1."""
    global _scale
    before, _scale = _scale, scale
    try:
        yield
    finally:
        _scale = before


class _WithLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, carrier: Tensor, loss: Tensor) -> Tensor:
        ctx.like = loss.dtype, loss.device
        return carrier.view_as(carrier)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        dtype, device = ctx.like
        return gradients[0], torch.full((), _scale, dtype=dtype, device=device)


def with_loss(carrier: Tensor, loss: Tensor) -> Tensor:
    """`carrier`, whose backward pass also minimises `loss`, a scalar summed over tokens."""
    return _WithLoss.apply(carrier, loss)  # type: ignore[return-value]


def importance(scores: Tensor, real: Tensor | None) -> Tensor:
    """m_e, the summed scores of each expert over real tokens. (N, E), (N,) bool -> (E,)"""
    return scores.sum(0) if real is None else (scores * real[:, None]).sum(0)


def num_real(scores: Tensor, real: Tensor | None) -> Tensor:
    """How many tokens are no padding, at least 1, float32 ()."""
    if real is None:
        return torch.tensor(float(len(scores)), device=scores.device)
    return real.sum().clamp(min=1).float()


def balance_loss(scores: Tensor, loads: Tensor, real: Tensor | None = None) -> Tensor:
    """E sum_e (c_e / N) (m_e / N): k for even loads, k E when one expert gets all (Fedus et al. 2021, Switch,
    equations 4 to 6).

    c_e counts the tokens that chose expert e and has no gradient; m_e sums their probabilities.

    Args:
        scores: (N, E) probabilities.
        loads: (E,) c_e, before any token is dropped.
        real: (N,) bool, False for padding, which counts for nothing.
    """
    tokens = num_real(scores, real)
    return scores.shape[1] * (loads / tokens * importance(scores, real) / tokens).sum()


def z_loss(logits: Tensor, real: Tensor | None = None) -> Tensor:
    """The mean of logsumexp(logits)^2, which keeps a gate's logits small (Zoph et al. 2022, ST-MoE, equation 5).

    (N, E) -> ()
    """
    z = logits.logsumexp(dim=-1).square()
    return z.mean() if real is None else (z * real).sum() / num_real(logits, real)
