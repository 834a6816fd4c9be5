"""Attention in steps, from a weighted mean to multi-head attention: each class adds one idea to the one before.

    SimpleSelfAttention   every token becomes a mean of all tokens, weighted by dot products; nothing is learned
    SelfAttention         learned queries, keys and values, scores divided by sqrt(d)   (Vaswani et al. 2017)
    MatrixSelfAttention   the same with bare matrices in place of Linear layers; weights go from one to the other
    CausalAttention       no token sees a later one; dropout of the weights
    BufferedAttention     the same with its mask kept as a buffer
    HeadByHead            several heads side by side, each a CausalAttention
    MultiHeadAttention    the same heads cut from one projection: equal numbers, fewer multiplications of matrices

`layers/attention.py` is the form the models use. All take (B, T, D); those here that are causal have no cache.
"""

import torch
from torch import Tensor, nn


class SimpleSelfAttention(nn.Module):
    """softmax(x x^T) x: (B, T, D) -> (B, T, D)"""

    def forward(self, x: Tensor) -> Tensor:
        return self.weights(x) @ x

    def weights(self, x: Tensor) -> Tensor:
        """How much each token takes of each: (B, T, T), rows sum to 1."""
        return (x @ x.mT).softmax(dim=-1)


class SelfAttention(nn.Module):
    """softmax(q k^T / sqrt(d)) v with learned projections. (B, T, D) -> (B, T, d)"""

    def __init__(self, dim: int, head_dim: int, bias: bool = False):
        super().__init__()
        self.q_proj = nn.Linear(dim, head_dim, bias)
        self.k_proj = nn.Linear(dim, head_dim, bias)
        self.v_proj = nn.Linear(dim, head_dim, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.weights(x) @ self.v_proj(x)

    def scores(self, x: Tensor) -> Tensor:
        """(B, T, T), before softmax."""
        q, k = self.q_proj(x), self.k_proj(x)
        return q @ k.mT / k.shape[-1] ** 0.5

    def weights(self, x: Tensor) -> Tensor:
        """(B, T, T), rows sum to 1."""
        return self.scores(x).softmax(dim=-1)


class MatrixSelfAttention(nn.Module):
    """SelfAttention with three bare matrices, drawn evenly from 0 to 1: x W, where nn.Linear computes x W^T.

    (B, T, D) -> (B, T, d)
    """

    def __init__(self, dim: int, head_dim: int):
        super().__init__()
        self.wq = nn.Parameter(torch.rand(dim, head_dim))
        self.wk = nn.Parameter(torch.rand(dim, head_dim))
        self.wv = nn.Parameter(torch.rand(dim, head_dim))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = x @ self.wq, x @ self.wk, x @ self.wv
        return (q @ k.mT / k.shape[-1] ** 0.5).softmax(dim=-1) @ v

    @torch.no_grad()
    def take(self, layers: SelfAttention) -> None:
        """Copy the weights of Linear layers without biases, transposed."""
        for matrix, linear in self._pairs(layers):
            matrix.copy_(linear.weight.T)

    @torch.no_grad()
    def give(self, layers: SelfAttention) -> None:
        """Copy the matrices into Linear layers without biases, transposed."""
        for matrix, linear in self._pairs(layers):
            linear.weight.copy_(matrix.T)

    def _pairs(self, layers: SelfAttention) -> list[tuple[Tensor, nn.Linear]]:
        projections = [layers.q_proj, layers.k_proj, layers.v_proj]
        assert all(linear.bias is None for linear in projections), "bare matrices have no biases"
        return list(zip((self.wq, self.wk, self.wv), projections, strict=True))


class CausalAttention(SelfAttention):
    """SelfAttention in which token t sees only tokens 0 .. t; weights are dropped in training."""

    def __init__(self, dim: int, head_dim: int, dropout: float = 0.0, bias: bool = False):
        super().__init__(dim, head_dim, bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.weights(x)) @ self.v_proj(x)

    def weights(self, x: Tensor) -> Tensor:
        return mask_scores(self.scores(x))


class BufferedAttention(CausalAttention):
    """CausalAttention whose mask is made once, for the longest text, and kept as a buffer.

    A buffer moves with the module (`.to`), but is no parameter: no optimizer sees it. This one is not saved either,
    because it follows from `context_length`, so both classes load each other's weights. The models here build masks per
    call (`layers/masks.py`): a buffer that was made on the meta device has no values.
    """

    later: Tensor

    def __init__(self, dim: int, head_dim: int, context_length: int, dropout: float = 0.0, bias: bool = False):
        super().__init__(dim, head_dim, dropout, bias)
        later = torch.ones(context_length, context_length, dtype=torch.bool).triu(1)
        self.register_buffer("later", later, persistent=False)

    def weights(self, x: Tensor) -> Tensor:
        length = x.shape[-2]
        return self.scores(x).masked_fill(self.later[:length, :length], -torch.inf).softmax(dim=-1)


def mask_scores(scores: Tensor) -> Tensor:
    """Minus infinity above the diagonal, then softmax: the later tokens get exactly no weight."""
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(later, -torch.inf).softmax(dim=-1)


def mask_weights(scores: Tensor) -> Tensor:
    """Softmax, then zeros above the diagonal, then rows divided by their sums: equal to `mask_scores`, because what the
    later tokens added to softmax's denominator cancels.
    """
    weights = scores.softmax(dim=-1).tril()
    return weights / weights.sum(dim=-1, keepdim=True)


class HeadByHead(nn.Module):
    """Several CausalAttention heads, one after another, joined along the features. (B, T, D) -> (B, T, H d)"""

    def __init__(self, dim: int, head_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = False):
        super().__init__()
        self.heads = nn.ModuleList(CausalAttention(dim, head_dim, dropout, bias) for _ in range(num_heads))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([head(x) for head in self.heads], dim=-1)


class MultiHeadAttention(nn.Module):
    """The heads of HeadByHead from one projection each for queries, keys and values, and a last projection that mixes
    them. (B, T, D) -> (B, T, D)
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0, bias: bool = False):
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(dim, dim, bias)
        self.k_proj = nn.Linear(dim, dim, bias)
        self.v_proj = nn.Linear(dim, dim, bias)
        self.o_proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.o_proj(self.heads(x).transpose(1, 2).flatten(2))

    def heads(self, x: Tensor) -> Tensor:
        """Each head's result, (B, H, T, d)."""
        split = (proj(x).unflatten(-1, (self.num_heads, -1)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        q, k, v = (t.transpose(1, 2) for t in split)  # (B, H, T, d)
        weights = mask_scores(q @ k.mT / k.shape[-1] ** 0.5)  # (B, H, T, T)
        return self.dropout(weights) @ v
