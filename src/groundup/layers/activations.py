"""Activation functions by the names that checkpoints use."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.base.errors import UsageError, did_you_mean

Activation = Callable[[Tensor], Tensor]


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)^2 (So et al. 2021, Primer)."""
    return F.relu(x).square()


def mish(x: Tensor) -> Tensor:
    """X * tanh(softplus(x)) (Misra 2019)."""
    return x * torch.tanh(F.softplus(x))


ACTIVATIONS: dict[str, Activation] = {
    "relu": F.relu,  # max(x, 0)
    "relu2": squared_relu,
    "gelu": F.gelu,  # x * Phi(x), exact through erf (Hendrycks & Gimpel 2016)
    "gelu_new": partial(F.gelu, approximate="tanh"),  # 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
    "gelu_fast": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,  # x * sigmoid(x) (Elfwing et al. 2017), also called swish
    "swish": F.silu,
    "mish": mish,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "linear": lambda x: x,
}


def activation(name: str) -> Activation:
    """The function called `name` in a checkpoint's config."""
    if name not in ACTIVATIONS:
        raise UsageError(
            f"unknown activation `{name}`.{did_you_mean(name, ACTIVATIONS)} One of: {', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]
