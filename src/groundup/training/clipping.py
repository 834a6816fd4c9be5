"""Gradient clipping by global norm (Pascanu et al. 2013).

    g <- g / max(1, ||g|| / c)

Some texts print `min` in place of `max`, or leave out c; then small gradients would be enlarged.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def global_norm(gradients: Iterable[Tensor]) -> Tensor:
    """Euclidean norm of all gradients together: a scalar fp32 tensor; 0 if there are none."""
    norms = [torch.linalg.vector_norm(g, dtype=torch.float32) for g in gradients]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())


@torch.no_grad()
def clip_gradients(gradients: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale gradients in place so that their global norm is at most `max_norm`; the norm before.

    Takes `optimizer.gradients()`, or the `.grad` of parameters. Nothing is changed when the norm is below `max_norm` or
    not finite: the caller decides what to do with such a step.
    """
    gradients = list(gradients)
    norm = global_norm(gradients)
    value = float(norm)
    if math.isfinite(value) and value > max_norm:
        for gradient in gradients:
            gradient.mul_(max_norm / value)
    return norm
