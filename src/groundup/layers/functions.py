"""The Transformer as typed functions, without modules or batches: what each part maps to what.

    Sequence  (d, L): L vectors of d numbers, in columns      Vector  (d,)      Ids  (L,) of integers

    embed_token                Ids -> Sequence
    embed_token_with_position  Ids -> Sequence
    attention                  (Sequence, Vector) -> Vector
    multi_headed_attention     (Sequence, Vector) -> Vector
    self_attention             Sequence -> Sequence
    feed_forward               Sequence -> Sequence
    add_norm                   (Sequence -> Sequence), Sequence -> Sequence
    transformer_block          Sequence -> Sequence
    gpt                        Ids -> Sequence: the block over and over, after the embedding

They follow the notation of the lecture notes CS324 (Liang et al. 2022, "Modeling"), which GPT-3 is written in as
TransformerBlock^96(EmbedTokenWithPosition(x)). `layers/attention.py` is what models use.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Map = Callable[[Tensor], Tensor]
"""Sequence -> Sequence, (d, L) -> (d, L)"""


@dataclass(frozen=True)
class HeadWeights:
    """Matrices of one head, (d_head, d) each."""

    query: Tensor
    key: Tensor
    value: Tensor


@dataclass(frozen=True)
class BlockWeights:
    """What a block has learned.

    Attributes:
        heads: of self-attention.
        output: (d, heads * d_head), mixes what the heads bring.
        w1, b1, w2, b2: (f, d), (f,), (d, f), (d,) of the feed-forward network.
        gain1, bias1, gain2, bias2: (d,), of the two norms.
    """

    heads: Sequence[HeadWeights]
    output: Tensor
    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor
    gain1: Tensor
    bias1: Tensor
    gain2: Tensor
    bias2: Tensor


def embed_token(ids: Tensor, table: Tensor) -> Tensor:
    """Ids (L,), table (V, d) -> (d, L): each id's row, as a column."""
    return table[ids].T


def positions(d: int, length: int) -> Tensor:
    """(d, L): row j is sin(p / 10000^(j / d)) for even j, and cos(p / 10000^((j - 1) / d)) for odd j (Vaswani et al.
    2017).
    """
    row, place = torch.arange(d)[:, None], torch.arange(length)[None]
    angle = place / 10_000 ** ((row - row % 2) / d)
    return torch.where(row % 2 == 0, angle.sin(), angle.cos())


def embed_token_with_position(ids: Tensor, table: Tensor) -> Tensor:
    """Ids (L,), table (V, d) -> (d, L)"""
    x = embed_token(ids, table)
    return x + positions(*x.shape)


def attention(x: Tensor, y: Tensor, w: HeadWeights) -> Tensor:
    """What y (d,) takes from x (d, L): W_value x softmax(x^T W_key^T W_query y / sqrt(d_head)), (d_head,)"""
    scores = x.T @ w.key.T @ w.query @ y / w.key.shape[0] ** 0.5  # (L,)
    return w.value @ x @ scores.softmax(0)


def multi_headed_attention(x: Tensor, y: Tensor, heads: Sequence[HeadWeights], output: Tensor) -> Tensor:
    """W_output [attention_1(x, y), ..., attention_n(x, y)]: x (d, L), y (d,) -> (d,)"""
    return output @ torch.cat([attention(x, y, head) for head in heads])


def self_attention(x: Tensor, heads: Sequence[HeadWeights], output: Tensor, causal: bool = False) -> Tensor:
    """Every vector of x takes from x; with `causal`, from itself and those before it. (d, L) -> (d, L)"""
    seen = [x[:, : i + 1] if causal else x for i in range(x.shape[1])]
    return torch.stack([multi_headed_attention(part, y, heads, output) for part, y in zip(seen, x.T, strict=True)], 1)


def feed_forward(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """W2 max(W1 x_i + b1, 0) + b2 of every vector x_i. (d, L) -> (d, L)"""
    return w2 @ (w1 @ x + b1[:, None]).clamp(min=0) + b2[:, None]


def add_norm(f: Map, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """LayerNorm(x + f(x)), each vector by itself. (d, L) -> (d, L)"""
    return F.layer_norm((x + f(x)).T, gain.shape, gain, bias).T


def transformer_block(x: Tensor, w: BlockWeights, causal: bool = False) -> Tensor:
    """AddNorm(FeedForward, AddNorm(SelfAttention, x)). (d, L) -> (d, L)"""
    attended = add_norm(lambda x: self_attention(x, w.heads, w.output, causal), x, w.gain1, w.bias1)
    return add_norm(lambda x: feed_forward(x, w.w1, w.b1, w.w2, w.b2), attended, w.gain2, w.bias2)


def gpt(ids: Tensor, table: Tensor, blocks: Sequence[BlockWeights]) -> Tensor:
    """TransformerBlock^n(EmbedTokenWithPosition(ids)), causal: ids (L,) -> (d, L)

    The form of the notes. GPT-3 itself puts its norms before the branches, and learned positions in place of waves.
    """
    x = embed_token_with_position(ids, table)
    for w in blocks:
        x = transformer_block(x, w, causal=True)
    return x
