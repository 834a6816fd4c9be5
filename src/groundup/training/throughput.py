"""How fast, and how much of what the device could do."""

import os
import shutil
import time

import torch
from torch import nn

from groundup.base.console import warn


def flops_per_token(model: nn.Module, width: int) -> float:
    """Operations of one trained token, forward and backward (Chowdhery et al. 2022, appendix B).

        6 (N - E) + 12 L D T / 2

    N parameters, E those of tables that are only looked up, L layers, D their width, T the row's length; attention is causal,
    so half of it.
    """
    looked_up = {id(m.weight): m.weight.numel() for m in model.modules() if isinstance(m, nn.Embedding)}
    multiplied = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    tables = sum(size for key, size in looked_up.items() if key not in multiplied)
    weights = sum(parameter.numel() for parameter in model.parameters()) - tables
    config = getattr(model, "config", None)
    layers, hidden = getattr(config, "num_hidden_layers", 0), getattr(config, "hidden_size", 0)
    return 6.0 * weights + 6.0 * layers * hidden * width


def measured_peak(device: torch.device, dtype: torch.dtype, size: int = 1024) -> float:
    """Operations per second of a square matrix product, the best of five."""
    a = torch.ones(size, size, device=device, dtype=dtype)  # random numbers would move the generators
    best = float("inf")
    for _ in range(5):
        synchronize(device)
        start = time.perf_counter()
        a @ a
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best


def synchronize(device: torch.device) -> None:
    """Wait for the device, where it works on its own."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def compiled(model: nn.Module, active: bool):
    """The model through torch.compile; the model itself, with one line that says so, where there is no compiler."""
    if not active:
        return model
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++", "cl")):
        warn("no C++ compiler was found: training runs uncompiled")
        return model
    return torch.compile(model)
