"""AdaFactor."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from groundup.training.optimizers.base import Group, Optimizer, State

_EPS_SQUARE = 1e-30
"""ε1 of the paper: added to squared gradients."""
_EPS_SCALE = 1e-3
"""ε2 of the paper: the smallest scale of a parameter."""


class AdaFactor(Optimizer):
    """AdaFactor (Shazeer and Stern 2018, algorithms 4 and 5).

    The mean square of an (m, n) matrix is kept as its row means (m,) and column means (n,): m + n numbers in place of
    Adam's 2 m n. Vectors keep their full mean square. No momentum unless `beta1` is given.
    """

    def __init__(
        self,
        groups: Iterable[Any],
        lr: float = 1e-3,
        *,
        relative_step: bool = False,
        warmup_init: bool = False,
        scale_parameter: bool = False,
        beta1: float | None = None,
        decay_rate: float = -0.8,
        clip_threshold: float = 1.0,
        weight_decay: float = 0.0,
        flat: bool = True,
    ):
        defaults = {
            "lr": lr,
            "relative_step": relative_step,
            "warmup_init": warmup_init,
            "scale_parameter": scale_parameter,
            "beta1": beta1,
            "decay_rate": decay_rate,
            "clip_threshold": clip_threshold,
            "weight_decay": weight_decay,
        }
        super().__init__(groups, defaults, flat=flat)

    def elementwise(self, group: Group) -> bool:
        """Rows and columns make it a rule for whole tensors."""
        return False

    def new_state(self, weight: Tensor, group: Group) -> State:
        """Row and column means for matrices, the full mean square for vectors; momentum if `beta1` is given."""
        shape = weight.shape
        if weight.ndim >= 2:
            state = {"rows": weight.new_zeros(shape[:-1]), "columns": weight.new_zeros(shape[:-2] + shape[-1:])}
        else:
            state = {"square": weight.new_zeros(shape)}
        if group["beta1"] is not None:
            state["mean"] = weight.new_zeros(shape)
        return state

    def update(self, weight: Tensor, gradient: Tensor, state: State, group: Group, step: int) -> None:
        """Update: w <- w - α clip(g / √v̂), with α = learning rate x scale of the parameter."""
        rate = _learning_rate(weight, group, step)
        update = _mean_square_root_inverse(gradient, state, beta2=1 - step ** group["decay_rate"]).mul_(gradient)

        # û = u / max(1, RMS(u) / d)
        update.div_((_rms(update) / group["clip_threshold"]).clamp_(min=1.0)).mul_(rate)
        if group["beta1"] is not None:
            update = state["mean"].mul_(group["beta1"]).add_(update, alpha=1 - group["beta1"])
        if group["weight_decay"]:
            weight.sub_(weight * (group["weight_decay"] * rate))
        weight.sub_(update)


def _learning_rate(weight: Tensor, group: Group, step: int) -> Tensor | float:
    """α_t = max(ε2, RMS(w)) ρ_t, with ρ_t = min(1e-2 or 1e-6 t, 1/√t); each factor where it is asked for."""
    rate = group["lr"]
    if group["relative_step"]:
        rate *= min(1e-6 * step if group["warmup_init"] else 1e-2, 1 / math.sqrt(step))
    return _rms(weight).clamp_(min=_EPS_SCALE) * rate if group["scale_parameter"] else rate


def _mean_square_root_inverse(gradient: Tensor, state: State, beta2: float) -> Tensor:
    """1 / √v̂ after taking in this gradient."""
    square = gradient.square().add_(_EPS_SQUARE)
    if "rows" not in state:
        return state["square"].lerp_(square, 1 - beta2).rsqrt()

    # R <- β2 R + (1 - β2) mean over columns of g²;   C likewise over rows;   v̂ = R C / mean(R)
    rows = state["rows"].lerp_(square.mean(dim=-1), 1 - beta2)
    columns = state["columns"].lerp_(square.mean(dim=-2), 1 - beta2)
    return (rows / rows.mean(dim=-1, keepdim=True)).rsqrt().unsqueeze(-1) * columns.unsqueeze(-2).rsqrt()


def _rms(tensor: Tensor) -> Tensor:
    return torch.linalg.vector_norm(tensor) / math.sqrt(tensor.numel())
