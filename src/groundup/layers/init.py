"""How weights begin."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from groundup.layers.moe.experts import GroupedLinear
from groundup.layers.moe.gates.gate import Gate


def normal(model: nn.Module, std: float = 0.02) -> None:
    """Linear and embedding weights, those of experts and gates too, from N(0, std^2), biases zero; norms are left at
    one (Radford et al. 2018).
    """
    linear = (nn.Linear, GroupedLinear, Gate)
    module: Any
    for module in model.modules():
        if isinstance(module, (*linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=std)
        if isinstance(module, linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def scale_residual(projections: Iterable[nn.Module], num_branches: int) -> None:
    """Divide the weights of the projections that end residual branches by sqrt(num_branches), so that the sum of the
    branches has the variance of one (Radford et al. 2019: two branches a layer).
    """
    with torch.no_grad():
        for projection in projections:
            projection.weight.div_(math.sqrt(num_branches))  # type: ignore[union-attr, operator]


def xavier_uniform(weight: Tensor, gain: float = 1.0) -> Tensor:
    """U(-a, a) with a = gain * sqrt(6 / (fan_in + fan_out)): keeps the variance of signals and gradients
    (Glorot & Bengio 2010).
    """
    fan_out, fan_in = weight.shape
    bound = gain * math.sqrt(6 / (fan_in + fan_out))
    with torch.no_grad():
        return weight.uniform_(-bound, bound)


def xavier_normal(weight: Tensor, gain: float = 1.0) -> Tensor:
    """N(0, gain^2 * 2 / (fan_in + fan_out)) (Glorot & Bengio 2010)."""
    fan_out, fan_in = weight.shape
    with torch.no_grad():
        return weight.normal_(0, gain * math.sqrt(2 / (fan_in + fan_out)))


def orthogonal(weight: Tensor, gain: float = 1.0) -> Tensor:
    """A random matrix with orthonormal rows (or columns, where there are more rows), times gain (Saxe et al. 2013)."""
    rows, columns = weight.shape
    tall = torch.randn(max(rows, columns), min(rows, columns))
    q, r = torch.linalg.qr(tall)
    q = q * r.diagonal().sign()  # makes the choice uniform over orthogonal matrices
    with torch.no_grad():
        return weight.copy_(gain * (q if rows >= columns else q.T))


def t5_query(weight: Tensor, dim: int, head_dim: int) -> Tensor:
    """T5's query projection, N(0, 1 / (D d)): the extra 1 / sqrt(d) stands in for the division of the scores, which T5
    leaves out (Raffel et al. 2020).
    """
    with torch.no_grad():
        return weight.normal_(0, (dim * head_dim) ** -0.5)


def deepnorm(model: nn.Module, beta: float) -> None:
    """DeepNorm's start (Wang et al. 2022): Xavier with gain beta for values, outputs and the feed-forward network,
    gain 1 for queries and keys, biases zero. Embeddings and the head are left as they are.
    """
    scaled = {"v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    for name, module in model.named_modules():
        leaf = name.rpartition(".")[2]
        if isinstance(module, nn.Linear) and leaf in scaled | {"q_proj", "k_proj"}:
            xavier_normal(module.weight, gain=beta if leaf in scaled else 1.0)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
