"""Adam and AdamW."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from groundup.training.optimizers.base import Group, Optimizer, State
from groundup.training.optimizers.paged import paged_zeros


def adam_update(
    weight: Tensor,
    gradient: Tensor,
    state: State,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    decay: float,
    decoupled: bool,
    scale: float = 1.0,
) -> None:
    """Adam's formula, in place, one tensor operation a line: the reference that the fused kernel is tested against."""
    beta1, beta2 = betas
    mean, square = state["mean"], state["square"]
    if scale != 1.0:
        gradient = gradient * scale
    if decoupled:
        # AdamW: w <- w - η λ w
        weight.mul_(1 - lr * decay)
    elif decay:
        # Adam with an L2 penalty: g <- g + λ w
        gradient = gradient.add(weight, alpha=decay)

    # m <- β1 m + (1 - β1) g;   v <- β2 v + (1 - β2) g²
    mean.lerp_(gradient, 1 - beta1)
    square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)

    # m̂ = m / (1 - β1^t);   v̂ = v / (1 - β2^t);   w <- w - η m̂ / (√v̂ + ε)
    denominator = (square.sqrt() / math.sqrt(1 - beta2**step)).add_(eps)
    weight.addcdiv_(mean, denominator, value=-lr / (1 - beta1**step))


def fused_adam_update(
    weight: Tensor,
    gradient: Tensor,
    state: State,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    decay: float,
    decoupled: bool,
    scale: float = 1.0,
) -> None:
    """The same formula in one pass over memory, by torch's kernel; on a flat buffer one call serves all parameters."""
    kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_
    kernel(
        [weight],
        [gradient],
        [state["mean"]],
        [state["square"]],
        [],
        [torch.tensor(float(step), device=weight.device)],
        lr=lr,
        beta1=betas[0],
        beta2=betas[1],
        weight_decay=decay,
        eps=eps,
        amsgrad=False,
        maximize=False,
        # The kernel divides by it.
        grad_scale=None if scale == 1.0 else torch.tensor(1 / scale, device=weight.device),
    )


def has_fused_kernel(weight: Tensor) -> bool:
    """Whether this torch has the fused kernel for a plain tensor on this device."""
    return (
        hasattr(torch, "_fused_adamw_")
        and type(weight) in (Tensor, torch.nn.Parameter)
        and weight.device.type in ("cpu", "cuda")
        and weight.is_floating_point()
    )


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015): two numbers of state a parameter; weight decay is an L2 penalty.

    `fused=False` uses the readable formula in place of torch's kernel; `paged` keeps the state in a mapped file.
    """

    decoupled = False
    scales_gradients = True

    def __init__(
        self,
        groups: Iterable[Any],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        flat: bool = True,
        fused: bool = True,
        paged: bool = False,
    ):
        self.fused, self.paged = fused, paged
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}, flat=flat)

    def new_state(self, weight: Tensor, group: Group) -> State:
        """Running means of the gradient and of its square, zero."""
        if self.paged:
            return {"mean": paged_zeros(weight), "square": paged_zeros(weight)}
        return {"mean": weight.new_zeros(weight.shape), "square": weight.new_zeros(weight.shape)}

    def update(self, weight: Tensor, gradient: Tensor, state: State, group: Group, step: int) -> None:
        """See `adam_update`."""
        rule = fused_adam_update if self.fused and has_fused_kernel(weight) else adam_update
        rule(
            weight,
            gradient,
            state,
            step=step,
            lr=group["lr"],
            betas=group["betas"],
            eps=group["eps"],
            decay=group["weight_decay"],
            decoupled=self.decoupled,
            scale=group["gradient_scale"],
        )


class AdamW(Adam):
    """Adam with weight decay apart from the gradient (Loshchilov and Hutter 2019)."""

    decoupled = True
