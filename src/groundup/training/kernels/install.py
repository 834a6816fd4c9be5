"""Puts the kernels of this folder into a model, and takes them out again."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import nn
from torch.nn import functional as F

from groundup.layers.attention import AttentionCore
from groundup.layers.feedforward import MLP
from groundup.layers.norms import RMSNorm
from groundup.training.kernels.attention import tiled_attention
from groundup.training.kernels.gelu import gelu_tanh
from groundup.training.kernels.rms_norm import rms_norm


@contextlib.contextmanager
def accelerated(model: nn.Module, active: bool = True) -> Iterator[None]:
    """While this is open the model's parts use the kernels where a gradient is wanted; results are equal to rounding.

    Only exactly the classes known here are changed, so that parts that others put in stay as they are.
    """
    found = [(module, *change) for module in model.modules() if active and (change := faster(module))]
    own = [(module, name, vars(module)[name]) for module, name, _ in found if name in vars(module)]
    for module, name, value in found:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, _ in found:
            delattr(module, name)
        for module, name, value in own:
            setattr(module, name, value)


def faster(module: nn.Module) -> tuple[str, Callable[..., Any]] | None:
    """The attribute to change and its new value, or None."""
    if type(module) is AttentionCore:
        return "forward", partial(tiled_attention, module)
    if type(module) is RMSNorm:
        return "forward", partial(rms_norm, module)
    if type(module) is MLP and is_gelu_tanh(module.act):
        return "act", gelu_tanh
    return None


def is_gelu_tanh(function: Any) -> bool:
    """Whether this is torch's GELU in its tanh form."""
    return isinstance(function, partial) and function.func is F.gelu and function.keywords == {"approximate": "tanh"}
