"""How RWKV's blocks join their parts: both parts see the token before, so both are told of documents and state."""

from torch import Tensor

from groundup.layers.block import Block
from groundup.layers.context import Context
from groundup.layers.embedding import Embedding
from groundup.layers.norms import LayerNorm


class MixingBlock(Block):
    """Pre-norm, as `Block`: x + attn(norm1(x)), then x + mlp(norm2(x))."""

    compiles = False  # loops over chunks, unrolled, take longer to compile than they save

    def forward(self, x: Tensor, context: Context) -> Tensor:
        x = x + self.attn_dropout(self.attn(self.norm1(x), context))
        return x + self.mlp_dropout(self.mlp(self.norm2(x), context))


class NormedStreamBlock(MixingBlock):
    """RWKV-2's: the norm is in the residual stream, x = norm1(x), x + attn(x), then the same with norm2 and mlp."""

    def forward(self, x: Tensor, context: Context) -> Tensor:
        x = self.norm1(x)
        x = self.norm2(x + self.attn_dropout(self.attn(x, context)))
        return x + self.mlp_dropout(self.mlp(x, context))


class NormedEmbedding(Embedding):
    """Token vectors, or vectors in their place, through a LayerNorm of their own: tiny initial vectors then grow at
    once to full size (RWKV-3 and later). (B, T) or (B, T, D) -> (B, T, D)
    """

    def __init__(self, num_embeddings: int, dim: int, eps: float = 1e-5):
        super().__init__(num_embeddings, dim)
        self.norm = LayerNorm(dim, eps)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return self.norm(self.vectors(x))
