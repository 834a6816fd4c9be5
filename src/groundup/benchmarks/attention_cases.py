"""One causal multi-head attention, written ten ways, all with the same weights: (B, T, D) -> (B, T, D)."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from groundup.layers.attention import Attention
from groundup.layers.attention_steps import HeadByHead, MultiHeadAttention, mask_scores
from groundup.layers.context import Context
from groundup.layers.flash.core import FlashCore


class Whole(nn.Module):
    """Ours as the models use it: `layers.attention.Attention` on whole rows."""

    def __init__(self, attention: Attention):
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, Context(torch.arange(x.shape[1], device=x.device)[None]))


class Wrapper(nn.Module):
    """Heads one after another, and an output projection."""

    def __init__(self, attention: Attention, heads: int):
        super().__init__()
        dim, d = attention.q_proj.in_features, attention.head_dim
        self.heads, self.o_proj = HeadByHead(dim, d, heads), attention.o_proj
        for h, head in enumerate(self.heads.heads):
            for name in ("q_proj", "k_proj", "v_proj"):
                getattr(head, name).weight = nn.Parameter(getattr(attention, name).weight[h * d : (h + 1) * d].detach())

    def forward(self, x: Tensor) -> Tensor:
        return self.o_proj(self.heads(x))


class OneProjection(nn.Module):
    """Queries, keys and values from one product; scores and weights by hand."""

    def __init__(self, attention: Attention, heads: int):
        super().__init__()
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.weight = nn.Parameter(torch.cat([p.weight for p in parts]).detach())
        self.num_heads, self.o_proj = heads, attention.o_proj

    def forward(self, x: Tensor) -> Tensor:
        return self.o_proj(self.attend(*self.split(x)).transpose(1, 2).flatten(2))

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values, (B, H, T, d) each."""
        return F.linear(x, self.weight).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, H, T, d) each -> (B, H, T, d)"""
        return mask_scores(q @ k.mT * k.shape[-1] ** -0.5) @ v


class MathKernel(OneProjection):
    """torch's scaled_dot_product_attention without its fused kernels."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class Flex(OneProjection):
    """torch's FlexAttention, compiled, with a causal block mask."""

    def __init__(self, attention: Attention, heads: int):
        from torch.nn.attention.flex_attention import flex_attention

        super().__init__(attention, heads)
        self.flex: Any = torch.compile(flex_attention)
        self.masks: dict[tuple[int, torch.device], Any] = {}

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from torch.nn.attention.flex_attention import create_block_mask

        key = (q.shape[2], q.device)
        if key not in self.masks:
            causal = lambda b, h, i, j: i >= j  # noqa: E731
            self.masks[key] = create_block_mask(causal, None, None, key[0], key[0], device=str(key[1]))
        return self.flex(q, k, v, block_mask=self.masks[key])


class Einsum(nn.Module):
    """Every step as an einsum over named dimensions."""

    def __init__(self, attention: Attention, heads: int):
        super().__init__()
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.wq, self.wk, self.wv = (nn.Parameter(p.weight.detach().unflatten(0, (heads, -1)).clone()) for p in parts)
        self.wo = nn.Parameter(attention.o_proj.weight.detach().unflatten(1, (heads, -1)).clone())

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("btm,hdm->bhtd", x, w) for w in (self.wq, self.wk, self.wv))
        weights = mask_scores(torch.einsum("bhtd,bhsd->bhts", q, k) * k.shape[-1] ** -0.5)
        return torch.einsum("bhts,bhsd,mhd->btm", weights, v, self.wo)


class TorchModule(nn.Module):
    """torch.nn.MultiheadAttention.

    Args:
        attention: whose weights it takes.
        heads: H.
        weights: ask for the attention weights too, which rules its fused kernels out.
    """

    def __init__(self, attention: Attention, heads: int, weights: bool):
        super().__init__()
        dim = attention.q_proj.in_features
        self.inner, self.weights = nn.MultiheadAttention(dim, heads, bias=False, batch_first=True), weights
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.inner.in_proj_weight = nn.Parameter(torch.cat([p.weight for p in parts]).detach())
        self.inner.out_proj.weight = nn.Parameter(attention.o_proj.weight.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        return self.inner(x, x, x, attn_mask=later, is_causal=not self.weights, need_weights=self.weights)[0]


def with_core(attention: Attention, version: int) -> nn.Module:
    """Ours with a readable tiled core."""
    import copy

    tiled = copy.deepcopy(attention)
    tiled.core = FlashCore.like(attention.core, version=version)
    return Whole(tiled)


def split_heads(attention: Attention, heads: int) -> nn.Module:
    """The last step of `attention_steps`."""
    split = MultiHeadAttention(attention.q_proj.in_features, heads)
    split.o_proj = nn.Linear(*attention.o_proj.weight.shape[::-1], bias=False)
    split.load_state_dict(attention.state_dict())
    return split


OURS = "Attention"
IMPLEMENTATIONS: dict[str, Callable[[Attention, int], nn.Module]] = {
    OURS: lambda attention, heads: Whole(attention),
    "heads one by one": Wrapper,
    "heads split": split_heads,
    "one projection": OneProjection,
    "einsum": Einsum,
    "math kernel": MathKernel,
    "MultiheadAttention": lambda attention, heads: TorchModule(attention, heads, weights=False),
    "MultiheadAttention with weights": lambda attention, heads: TorchModule(attention, heads, weights=True),
    "FlexAttention": Flex,
    "tiles v1": lambda attention, heads: with_core(attention, 1),
    "tiles v2": lambda attention, heads: with_core(attention, 2),
}
"""Name -> what makes it from the weights of `Attention` and the number of heads."""

PEERS = {
    "by hand": ["heads one by one", "heads split", "one projection", "einsum", "math kernel"],
    "torch": ["MultiheadAttention", "MultiheadAttention with weights", "FlexAttention"],
    "tiles in Python": ["tiles v1", "tiles v2"],
}
"""Rows of the result: ours beside the best of each."""
