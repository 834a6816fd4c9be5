"""Which keys a query may attend to.

A rule (`Causal`, `Bidirectional`) is a small frozen description that a layer holds; `build` turns it into a `Mask` for
one forward call. A mask is dense only where it must be: plain causal rows use the kernels' own `is_causal`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from groundup.layers.context import Context


@dataclass(frozen=True, eq=False)
class Mask:
    """Either `causal` (query t sees keys 0..t of as many keys as queries) or `allowed`, (B or 1, 1 or H, T, S) bool.

    With neither, every query sees every key.
    """

    causal: bool = False
    allowed: Tensor | None = None

    def dense(self, queries: int, keys: int, device: torch.device) -> Tensor:
        """(B or 1, 1 or H, T, S) bool: True where the query may see the key."""
        if self.allowed is not None:
            return self.allowed
        every = torch.ones(1, 1, queries, keys, dtype=torch.bool, device=device)
        return every.tril() if self.causal else every


class MaskRule(Protocol):
    """A frozen, hashable description of who sees whom."""

    def build(self, context: "Context") -> Mask:
        """The mask of one forward call."""
        ...

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class Causal:
    """Each token sees itself and what came before it in its document.

    Attributes:
        window: with a window of w, only the last w tokens, itself included (Beltagy et al. 2020; Mistral 7B 2023).
    """

    window: int | None = None

    def build(self, context: "Context") -> Mask:
        queries, keys = query_slots(context), key_slots(context)
        if self._plain(context, queries.shape[1], keys.shape[1]):
            return Mask(causal=context.fresh)
        distance = queries[:, None, :, None] - keys[:, None, None, :]  # (B|1, 1, T, S)
        allowed = distance >= 0
        if self.window is not None:
            allowed = allowed & (distance < self.window)
        return Mask(allowed=allowed & same_document(context))

    def _plain(self, context: "Context", num_queries: int, num_keys: int) -> bool:
        """Whether the kernels' own causal mask, or none at all, says the same."""
        if context.documents is not None or (self.window is not None and num_keys > self.window):
            return False
        if context.fresh:
            return True
        return num_queries == 1 and context.placement is not None and context.placement.start is not None


@dataclass(frozen=True)
class Bidirectional:
    """Each token sees all of its document, later tokens included (BERT)."""

    def build(self, context: "Context") -> Mask:
        if context.documents is None:
            return Mask()
        return Mask(allowed=same_document(context))


def query_slots(context: "Context") -> Tensor:
    """Where this call's tokens stand in their rows, (B or 1, T) int64."""
    if context.placement is not None and not context.placement.fresh:
        return context.placement.slots
    return torch.arange(context.positions.shape[1], device=context.positions.device)[None]


def key_slots(context: "Context") -> Tensor:
    """Where the keys stand in their rows, (B or 1, S) int64."""
    fresh = context.placement is None or context.placement.fresh
    if not fresh and context.placement.keys is not None:  # type: ignore[union-attr]
        return context.placement.keys  # type: ignore[union-attr]
    count = context.positions.shape[1] if fresh else context.placement.length  # type: ignore[union-attr]
    return torch.arange(count, device=context.positions.device)[None]


def same_document(context: "Context") -> Tensor:
    """(B or 1, 1, T, S) bool: query and key are of one document. Padding is a document of its own, so that no row of
    the mask is empty and softmax stays finite.
    """
    if context.documents is None or not context.fresh:
        return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=context.positions.device)
    documents = context.documents
    return (documents[:, :, None] == documents[:, None, :])[:, None]
