"""Attention that is asked from positions: what stands at the next one? (Zeng et al. 2021, PanGu-alpha, equation 5)

queries   q_proj(p_n)     p_n: a learned vector of the position whose token is to be told
keys      k_proj(x)       of the tokens, as ever
"""

from typing import Any

from torch import Tensor, nn

from groundup.layers.attention import Attention
from groundup.layers.context import Context


class NextPositionAttention(Attention):
    """Attention whose queries know positions alone. (B, T, D) -> (B, T, D)

    Args:
        dim: D.
        num_heads: H.
        max_positions: positions that are learned.
        settings: as in Attention, without norms and rotary positions.
    """

    def __init__(self, dim: int, num_heads: int, max_positions: int, **settings: Any):
        super().__init__(dim, num_heads, **settings)
        self.queries = nn.Embedding(max_positions, dim)

    def heads(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Where all rows have the same positions, queries are projected once for all of them."""
        asked = self.q_proj(self.queries(context.positions)).expand(len(x), -1, -1)  # (B, T, H d)
        q, k, v = (y.unflatten(-1, (-1, self.head_dim)) for y in (asked, self.k_proj(x), self.v_proj(x)))
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
