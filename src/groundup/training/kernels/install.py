"""Puts the kernels of this folder into a model, and takes them out again."""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from groundup.layers.attention import AttentionCore
from groundup.layers.feedforward import MLP, GatedMLP
from groundup.layers.norms import OffsetRMSNorm, RMSNorm
from groundup.training.kernels.attention import TiledCore
from groundup.training.kernels.embedding import Lookup
from groundup.training.kernels.gelu import gelu_tanh, gelu_tanh_to_fuse
from groundup.training.kernels.rms_norm import FasterOffsetRMSNorm, FasterRMSNorm
from groundup.training.objectives.cross_entropy import FUSED, loss_and_gradient


@contextlib.contextmanager
def accelerated(model: nn.Module, active: bool = True, *, compiled: bool = False) -> Iterator[None]:
    """While this is open the model's parts use the kernels where a gradient is wanted; results are equal to rounding.

    Only exactly the classes known here are changed, so that parts that others put in stay as they are.

    Args:
        model: its parts are changed.
        active: False changes nothing.
        compiled: the blocks are compiled, so they get the forms that the compiler fuses best.
    """
    with contextlib.ExitStack() as undo:
        for module in model.modules() if active else ():
            for name, value in faster(module, compiled):
                undo.callback(setattr, module, name, getattr(module, name))
                setattr(module, name, value)
        head = getattr(model, "lm_head", None)
        if active and compiled and type(head) is nn.Linear:
            setattr(head, FUSED, torch.compile(loss_and_gradient))
            undo.callback(delattr, head, FUSED)
        yield


def faster(module: nn.Module, compiled: bool) -> Iterator[tuple[str, Any]]:
    """(attribute, its faster value). A class for a class, not a function for a method: then all blocks look alike to
    the compiler, and one compilation serves them.
    """
    if type(module) is AttentionCore:
        yield "__class__", TiledCore
    elif type(module) is nn.Embedding and not unusual(module):
        yield "__class__", Lookup
    elif type(module) is RMSNorm and not compiled:
        yield "__class__", FasterRMSNorm
    elif type(module) is OffsetRMSNorm and not compiled:
        yield "__class__", FasterOffsetRMSNorm
    elif type(module) in (MLP, GatedMLP) and is_gelu_tanh(module.act):
        yield "act", gelu_tanh_to_fuse if compiled else gelu_tanh


def unusual(module: nn.Embedding) -> bool:
    """Whether an embedding does more than look up."""
    return bool(module.padding_idx is not None or module.max_norm or module.scale_grad_by_freq or module.sparse)


def is_gelu_tanh(function: Any) -> bool:
    """Whether this is torch's GELU in its tanh form."""
    return isinstance(function, partial) and function.func is F.gelu and function.keywords == {"approximate": "tanh"}
