"""torch.compile where it can work."""

import os
import shutil

import torch
from torch import nn

from groundup.base.console import warn


def compiled(model: nn.Module, active: bool):
    """The model through torch.compile; the model itself, with one line that says so, where there is no compiler."""
    if not active:
        return model
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++", "cl")):
        warn("no C++ compiler was found: training runs uncompiled")
        return model
    return torch.compile(model)
