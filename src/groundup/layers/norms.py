"""Normalisation over the features of each token."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + eps) * weight + bias, with the biased variance (Ba et al. 2016).

    Args:
        dim: features.
        eps: added to the variance.
        bias: whether a bias is learned.
    """

    def __init__(self, dim: int, eps: float = 1e-5, bias: bool = True):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class PlainLayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + eps), with nothing learned, computed in float32 (OLMo, Groeneveld et al. 2024)."""

    def __init__(self, dim: int, eps: float = 1e-5):
        super().__init__()
        self.dim, self.eps = dim, eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.float(), (self.dim,), None, None, self.eps).type_as(x)


class StdLayerNorm(nn.Module):
    """(x - mean) / (std + eps) * weight + bias, with the unbiased standard deviation and eps outside the root: the form
    of the Annotated Transformer (Rush 2018).
    """

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        return self.weight * (x - mean) / (std + self.eps) + self.bias


class RMSNorm(nn.Module):
    """x / rms(x) * weight, rms(x) = sqrt(mean(x^2) + eps), computed in float32 (Zhang & Sennrich 2019)."""

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        h = x.float()
        h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * h.type_as(x)


class Float32RMSNorm(RMSNorm):
    """x / rms(x) * weight, in float32 throughout: rounded once, after the gain (Gemma 4, 2026)."""

    def forward(self, x: Tensor) -> Tensor:
        h = x.float()
        h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + self.eps)
        return (h * self.weight.float()).type_as(x)


class PlainRMSNorm(nn.Module):
    """x / rms(x), with nothing learned, computed in float32."""

    def __init__(self, eps: float = 1e-6):
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        h = x.float()
        return (h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + self.eps)).type_as(x)


class OffsetRMSNorm(RMSNorm):
    """x / rms(x) * (1 + weight), with weights that begin at zero, in float32 throughout (Gemma 2024).

    Weight decay then pulls the gain towards one.
    """

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__(dim, eps)
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = x.float()
        h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + self.eps)
        return (h * (1 + self.weight.float())).type_as(x)


class GatedRMSNorm(RMSNorm):
    """RMSNorm of groups of features beside a gate z, in float32 (Dao & Gu 2024, Mamba-2).

    gate first      weight * (x silu(z) / rms(x silu(z)))
    norm first      weight * (x / rms(x)) silu(z)

    x and z (..., D) -> (..., D)

    Args:
        dim: features D.
        eps: added to the mean square.
        groups: parts of the features, one after another, that have a root mean square each.
        gate_first: which of the two.
    """

    def __init__(self, dim: int, eps: float = 1e-5, groups: int = 1, *, gate_first: bool = True):
        super().__init__(dim, eps)
        self.groups, self.gate_first = groups, gate_first

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        z = F.silu(gate.float())
        h = x.float() * z if self.gate_first else x.float()
        h = h.unflatten(-1, (self.groups, -1))
        h = (h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + self.eps)).flatten(-2)
        if not self.gate_first:
            return (self.weight.float() * h * z).type_as(gate)
        return self.weight * h.type_as(gate)


class AllHeadsNorm(nn.Module):
    """A norm over the features of all heads of a token together (OLMo 2, 2024), for the queries or keys of `Attention`.

    (B, T, H, d) -> (B, T, H, d)

    Args:
        norm: over H * d features.
    """

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.flatten(-2)).unflatten(-1, x.shape[-2:])


class HeadGroupNorm(nn.Module):
    """Each head's features of each token are normalised on their own, then weight and bias for every feature: GroupNorm
    (Wu & He 2018) with a group a head, as at the end of RWKV's time mixing.

    RWKV-5 divides by head_size_divisor = 8 first and adds 1e-5: the same as eps = 8^2 * 1e-5 = 64e-5 of RWKV-6.

    (..., H * d) -> (..., H * d)

    Args:
        num_heads: H.
        dim: H * d.
        eps: added to the variance.
    """

    def __init__(self, num_heads: int, dim: int, eps: float = 64e-5):
        super().__init__()
        self.num_heads, self.eps = num_heads, eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x.flatten(0, -2), self.num_heads, self.weight, self.bias, self.eps).view(x.shape)
