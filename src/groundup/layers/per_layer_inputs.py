"""Per-layer inputs (Gemma 3n 2025; Gemma 4 2026): besides its vector, each token has a narrow one for every layer.

    inputs     e = (own + norm(W x)) / sqrt(2)     own: looked up by id; x: the token's vector; (B, T, L, p)
    branch     up( act(gate(x)) * e_i )            at the end of block i

The second table is large, and one row a token is read of it: it may lie in slow memory.
"""

import torch
from torch import Tensor, nn

from groundup.base.errors import UsageError
from groundup.layers.activations import Activation
from groundup.layers.context import Context
from groundup.layers.embedding import ScaledEmbedding

SHARED = "per_layer_inputs"
"""Where the inputs lie in `Context.shared`."""


class PerLayerEmbedding(ScaledEmbedding):
    """ScaledEmbedding that also leaves the inputs of all layers in the context.

    Vectors that come in place of ids have no row: their inputs are norm(W x) alone.

    Args:
        num_embeddings, dim: V and D, as in Embedding.
        layers: L.
        width: p.
        norm: over p features.
        rows: of the second table; V when None.
    """

    def __init__(
        self, num_embeddings: int, dim: int, layers: int, width: int, norm: nn.Module, rows: int | None = None
    ):
        super().__init__(num_embeddings, dim)
        self.width = width
        self.per_layer = nn.Embedding(rows or num_embeddings, layers * width)
        self.projection = nn.Linear(dim, layers * width, bias=False)
        self.norm = norm

    @property
    def tables(self) -> tuple[nn.Embedding, ...]:
        return self.tokens, self.per_layer

    def forward(self, x: Tensor, context: Context) -> Tensor:
        vectors = super().forward(x, context)
        context.shared[SHARED] = self.inputs(x if context.ids is None else context.ids, vectors)
        return vectors

    def inputs(self, x: Tensor, vectors: Tensor) -> Tensor:
        """Ids (B, T), -1 where a vector is no token's, or vectors (B, T, D), and the vectors themselves (B, T, D) ->
        (B, T, L, p)
        """
        projected = self.projection(vectors) * vectors.shape[-1] ** -0.5
        mixed = self.norm(projected.unflatten(-1, (-1, self.width)))
        if x.is_floating_point():
            return mixed
        own = self.per_layer(x.clamp(min=0)).unflatten(-1, (-1, self.width)) * self.width**0.5
        both = (mixed + own) * 2**-0.5
        return torch.where((x < 0)[..., None, None], mixed, both)


class PerLayerBranch(nn.Module):
    """up(act(gate(x)) * e_i), e_i the input of this layer. (B, T, D) -> (B, T, D)

    Args:
        dim: D.
        width: p.
        layer: i.
        act: activation of the gate.
    """

    def __init__(self, dim: int, width: int, layer: int, act: Activation):
        super().__init__()
        self.layer, self.act = layer, act
        self.gate_proj = nn.Linear(dim, width, bias=False)
        self.up_proj = nn.Linear(width, dim, bias=False)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        if SHARED not in context.shared:
            raise UsageError(
                f"layer {self.layer} reads inputs of the embedding, which is not in this part of the model"
            )
        return self.up_proj(self.act(self.gate_proj(x)) * context.shared[SHARED][:, :, self.layer])
