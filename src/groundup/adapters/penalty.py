"""Losses of an adapter's own weights, and how they enter the gradient.

They enter as the losses of a mixture's gate do (`layers/moe/losses.py`): the loop differentiates a sum over tokens and
divides once, so here a penalty is multiplied by the tokens of the call, and any split of a batch gives one gradient.
"""

from typing import Any

import torch
from torch import Tensor

from groundup.layers.context import Context
from groundup.layers.moe.losses import with_loss


def penalised(carrier: Tensor, penalty: Tensor, tokens: Tensor | float) -> Tensor:
    """`carrier`, whose backward pass also minimises `penalty`, a scalar, as if it were a mean over tokens."""
    if not torch.is_grad_enabled():
        return carrier
    return with_loss(carrier, penalty * tokens)


def num_tokens(args: tuple[Any, ...]) -> Tensor | float:
    """How many tokens a call has, without padding where the layer is told of it: x (B, T, D), and a context or none."""
    for argument in args[1:]:
        if isinstance(argument, Context) and argument.documents is not None:
            return (argument.documents != 0).sum()
    return float(args[0].shape[:-1].numel())
