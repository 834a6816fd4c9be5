"""Cross-attention (Bahdanau et al. 2015; Vaswani et al. 2017): queries from the text that is written, keys and values
from the text that is read.

The source comes in `context.source` (B, S, E), with `context.source_documents` (B, S), 0 for its padding. Its keys and
values do not change while the target grows: with a state they are computed in the first call and kept, and later calls
need no source.
"""

from typing import Any

from torch import Tensor, nn

from groundup.base.errors import UsageError
from groundup.layers.attention import Attention
from groundup.layers.context import Context
from groundup.layers.masks import Mask


class CrossAttention(Attention):
    """Attention from each target token to all source tokens. (B, T, D) -> (B, T, D)

    Args:
        args, settings: as in Attention; its mask and rope do not apply.
        source_dim: E, the features of the source; D when None.
    """

    memory = "source"

    def __init__(self, *args: Any, source_dim: int | None = None, **settings: Any):
        super().__init__(*args, **settings)
        if self.rope is not None:
            raise UsageError("positions of source and target have no distance: cross-attention takes no rope")
        if source_dim is not None:
            for name in ("k_proj", "v_proj"):
                old = getattr(self, name)
                setattr(self, name, nn.Linear(source_dim, old.out_features, old.bias is not None))

    def mixed(self, x: Tensor, context: Context) -> Tensor:
        q = self.q_proj(x).unflatten(-1, (-1, self.head_dim))
        q = (q if self.q_norm is None else self.q_norm(q)).transpose(1, 2)  # (B, H, T, d)
        k, v, documents = self._source(context)
        return self.core(q, k, v, self._mask(context, documents)).transpose(1, 2).flatten(2)

    def _source(self, context: Context) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values of the source, (B, K, S, d), and its documents."""
        memory = None if context.state is None else context.state.layers[self.path]
        if memory is not None and memory.k is not None:
            return memory.k, memory.v, memory.documents
        if context.source is None:
            raise UsageError("cross-attention has nothing to read: give the source with the first tokens of the target")
        k, v = (proj(context.source).unflatten(-1, (-1, self.head_dim)) for proj in (self.k_proj, self.v_proj))
        k = k if self.k_norm is None else self.k_norm(k)
        k, v = k.transpose(1, 2), v.transpose(1, 2)
        if memory is not None:
            memory.fill(k, v, context.source_documents)
        return k, v, context.source_documents

    def _mask(self, context: Context, documents: Tensor | None) -> Mask:
        """Source padding is hidden; where target rows are packed, a document reads the source of its own number."""
        if documents is None:
            return Mask()
        if context.documents is None:
            return Mask(allowed=(documents != 0)[:, None, None])  # (B, 1, 1, S)
        own = context.documents[:, None, :, None] == documents[:, None, None]  # (B, 1, T, S)
        return Mask(allowed=own | (context.documents == 0)[:, None, :, None])  # padding reads all, to stay finite
