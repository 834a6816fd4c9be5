"""SGD with momentum."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from groundup.training.optimizers.base import Group, Optimizer, State


class SGD(Optimizer):
    """Stochastic gradient descent; Polyak's momentum (1964); Nesterov's as in Sutskever et al. (2013).

    Without momentum it holds no state; with momentum one number a parameter.
    """

    def __init__(
        self,
        groups: Iterable[Any],
        lr: float = 0.1,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        flat: bool = True,
    ):
        super().__init__(
            groups, {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}, flat=flat
        )

    def new_state(self, weight: Tensor, group: Group) -> State:
        """The velocity, if there is momentum."""
        return {"velocity": weight.new_zeros(weight.shape)} if group["momentum"] else {}

    def update(self, weight: Tensor, gradient: Tensor, state: State, group: Group, step: int) -> None:
        """Update: g <- g + λ w;  v <- μ v + g;  w <- w - η v  (Nesterov: w - η (g + μ v))."""
        if group["weight_decay"]:
            gradient = gradient.add(weight, alpha=group["weight_decay"])
        if group["momentum"]:
            velocity = state["velocity"].mul_(group["momentum"]).add_(gradient)
            gradient = gradient.add(velocity, alpha=group["momentum"]) if group["nesterov"] else velocity
        weight.sub_(gradient, alpha=group["lr"])
