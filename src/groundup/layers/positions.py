"""Absolute positions as vectors added to the tokens': sinusoidal, and what becomes of them inside a score."""

from typing import NamedTuple

import torch
from torch import Tensor

from groundup.layers.context import Context
from groundup.layers.embedding import Embedding


def sinusoid(positions: Tensor, dim: int, theta: float = 10_000.0, *, interleaved: bool = True) -> Tensor:
    """sin(p / theta^(2j / dim)) and cos(p / theta^(2j / dim)) for j = 0 .. dim/2 - 1: (...) -> (..., dim) float32

    Args:
        positions: any shape, integer or floating.
        dim: even.
        theta: base of the wavelengths.
        interleaved: sin, cos, sin, cos ... (Vaswani et al. 2017); else all sines, then all cosines (Transformer-XL and
            the authors' own tensor2tensor).
    """
    exponents = torch.arange(0, dim, 2, dtype=torch.int64, device=positions.device).float() / dim
    angles = positions[..., None].float() / theta**exponents  # (..., dim / 2)
    if interleaved:
        return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


class SinusoidalEmbedding(Embedding):
    """sqrt(D) times the token vector, plus the sinusoid of its position (Vaswani et al. 2017, sections 3.4 and 3.5).

    A fixed shift of the position is a rotation of every (sin, cos) pair, the same for all positions.

    Args:
        num_embeddings, dim, dropout: see Embedding.
        scale: factor of the token vectors; sqrt(dim) when None.
        interleaved: see `sinusoid`.
    """

    def __init__(
        self,
        num_embeddings: int,
        dim: int,
        dropout: float = 0.0,
        *,
        scale: float | None = None,
        interleaved: bool = True,
    ):
        super().__init__(num_embeddings, dim, dropout)
        self.scale, self.interleaved = dim**0.5 if scale is None else scale, interleaved

    def forward(self, x: Tensor, context: Context) -> Tensor:
        vectors = self.vectors(x) * self.scale
        waves = sinusoid(context.positions, vectors.shape[-1], interleaved=self.interleaved)
        return self.dropout(vectors + waves.to(vectors.dtype))


class ScoreTerms(NamedTuple):
    """The four parts of a score between tokens that carry their positions in themselves, (..., T, S) each."""

    content_content: Tensor
    """What the query's word asks of the key's word."""
    content_position: Tensor
    """What the query's word asks of the key's place."""
    position_content: Tensor
    """What the query's place asks of the key's word."""
    position_position: Tensor
    """What the query's place asks of the key's place."""

    @property
    def total(self) -> Tensor:
        """The score, before it is divided by sqrt(d)."""
        return self.content_content + self.content_position + self.position_content + self.position_position


def score_terms(x: Tensor, p: Tensor, wq: Tensor, wk: Tensor) -> ScoreTerms:
    """Write out the product of absolute positions (the start of Transformer-XL's and T5's relative forms):

        (x_i + p_i) Wq Wk^T (x_j + p_j)^T  =  x_i A x_j^T + x_i A p_j^T + p_i A x_j^T + p_i A p_j^T,   A = Wq Wk^T

    Args:
        x: token vectors (..., T, D).
        p: position vectors (T, D) or (..., T, D).
        wq: the weight of one head's query projection, (d, D) as in nn.Linear, without bias.
        wk: that of its key projection.
    """
    xq, pq, xk, pk = x @ wq.mT, p @ wq.mT, x @ wk.mT, p @ wk.mT
    return ScoreTerms(xq @ xk.mT, xq @ pk.mT, pq @ xk.mT, pq @ pk.mT)
