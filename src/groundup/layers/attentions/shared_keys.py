"""Keys and values that serve twice: as each other, or for later layers too.

Keys as values (Gemma 4, 2026): one projection gives both; keys are then normalised with a gain and turned, values are
normalised without one. The state still holds both, because they differ.

Layers that share (Brandon et al. 2024, cross-layer attention; Gemma 3n 2025; Gemma 4 2026): a lending layer leaves its
keys and values, those of the state included, in the context of the call; a borrowing layer has queries alone, and no
state of its own.
"""

from typing import Any

from torch import Tensor, nn

from groundup.base.errors import UsageError
from groundup.layers.attention import Attention
from groundup.layers.context import Context


class LendingAttention(Attention):
    """Attention with normalised values, which may be the keys and may be lent.

    Args:
        args, settings: as in Attention.
        v_norm: applied to each head's values.
        keys_as_values: whether values are the projected keys, before norm and rotation; there is no `v_proj` then.
        lends: whether later layers read the keys and values, from `context.shared` under this layer's path.
    """

    def __init__(
        self, *args: Any, v_norm: nn.Module, keys_as_values: bool = False, lends: bool = False, **settings: Any
    ):
        super().__init__(*args, **settings)
        self.v_norm, self.lends = v_norm, lends
        if keys_as_values:
            self.v_proj = None  # type: ignore[assignment]

    def heads(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        q, k = (proj(x).unflatten(-1, (-1, self.head_dim)) for proj in (self.q_proj, self.k_proj))
        v = k if self.v_proj is None else self.v_proj(x).unflatten(-1, (-1, self.head_dim))
        values = self.v_norm(v).transpose(1, 2)
        return self.turned(q, self.q_norm, context), self.turned(k, self.k_norm, context), values

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        if self.lends:
            context.shared[self.path] = k, v, context  # this context knows the slots of the keys
        return super().attend(q, k, v, context)


class BorrowingAttention(Attention):
    """Attention of a layer's queries to the keys and values of an earlier layer.

    Args:
        args, settings: as in Attention; the mask has to be that of the lending layer.
        source: path of the layer that lends.
    """

    memory = "borrowed"

    def __init__(self, *args: Any, source: str, **settings: Any):
        super().__init__(*args, **settings)
        self.source = source
        self.k_proj = self.v_proj = self.k_norm = None  # type: ignore[assignment]

    def mixed(self, x: Tensor, context: Context) -> Tensor:
        if self.source not in context.shared:
            raise UsageError(f"{self.path} reads the keys of {self.source}, which is not in this part of the model")
        k, v, seen = context.shared[self.source]
        q = self.turned(self.q_proj(x).unflatten(-1, (-1, self.head_dim)), self.q_norm, context)
        return self.attend(q, k, v, seen).transpose(1, 2).flatten(2)
