"""Muon: momentum, orthogonalised."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from groundup.training.optimizers.adam import adam_update, fused_adam_update, has_fused_kernel
from groundup.training.optimizers.base import Group, Optimizer, State

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b, c of the quintic p(x) = a x + b x³ + c x⁵, chosen by Jordan et al. (2024) for the steepest rise at 0."""


class Muon(Optimizer):
    """Muon (Jordan et al. 2024; Liu et al. 2025 for `match_rms_adamw`).

    Groups with rule "muon" hold matrices: the update is the momentum with all singular values drawn close to 1. Groups
    with rule "adamw" are updated by AdamW: embeddings, the output head, biases, norms. State: one number a parameter
    under Muon, two under AdamW.
    """

    def __init__(
        self,
        groups: Iterable[Any],
        lr: float = 1e-3,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        scale: str = "match_rms_adamw",
        newton_schulz_steps: int = 5,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        flat: bool = True,
    ):
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "scale": scale,
            "newton_schulz_steps": newton_schulz_steps,
            "weight_decay": weight_decay,
            "betas": betas,
            "eps": eps,
            "rule": "muon",
        }
        super().__init__(groups, defaults, flat=flat)

    def elementwise(self, group: Group) -> bool:
        """AdamW's groups are; Muon works on whole matrices."""
        return group["rule"] == "adamw"

    def new_state(self, weight: Tensor, group: Group) -> State:
        """The momentum of a matrix; AdamW's two means of the rest."""
        if group["rule"] == "muon":
            assert weight.ndim == 2, "Muon's rule is for matrices: put other tensors in a group with rule adamw"
            return {"velocity": weight.new_zeros(weight.shape)}
        return {"mean": weight.new_zeros(weight.shape), "square": weight.new_zeros(weight.shape)}

    def update(self, weight: Tensor, gradient: Tensor, state: State, group: Group, step: int) -> None:
        """Update: v <- μ v + (1 - μ) g;  w <- w - η λ w - η s orthogonal(v)  (Nesterov: of (1 - μ) g + μ v)."""
        if group["rule"] == "adamw":
            rule = fused_adam_update if has_fused_kernel(weight) else adam_update
            settings = {key: group[key] for key in ("lr", "betas", "eps")}
            rule(weight, gradient, state, step=step, decay=group["weight_decay"], decoupled=True, **settings)
            return
        velocity = state["velocity"].lerp_(gradient, 1 - group["momentum"])
        direction = gradient.lerp(velocity, group["momentum"]) if group["nesterov"] else velocity
        update = orthogonalise(direction, group["newton_schulz_steps"])
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(update, alpha=-group["lr"] * shape_scale(weight.shape, group["scale"]))


def orthogonalise(matrix: Tensor, steps: int = 5, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """A matrix (A, B) near U Vᵀ of its singular value decomposition U S Vᵀ, in `dtype`.

    Newton-Schulz iteration with `COEFFICIENTS`; singular values end between about 0.7 and 1.2, which serves well.
    """
    a, b, c = COEFFICIENTS
    x = matrix.to(dtype)
    tall = x.size(0) > x.size(1)
    x = x.T if tall else x
    # Frobenius norm 1 bounds every singular value by 1, where the iteration converges.
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        # X <- a X + (b G + c G²) X,  G = X Xᵀ: applies p to every singular value
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


def shape_scale(shape: torch.Size, scale: str) -> float:
    """The factor on the learning rate for an (A, B) matrix."""
    a, b = shape
    # match_rms_adamw: the update's root mean square is 0.2, as AdamW's usually is (Liu et al. 2025).
    return math.sqrt(max(1.0, a / b)) if scale == "original" else 0.2 * math.sqrt(max(a, b))
