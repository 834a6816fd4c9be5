"""What attention without a mask per pair asks of a batch: rows of one document, or of documents one after another."""

from dataclasses import dataclass
from typing import Self

import torch.nn.functional as F
from torch import Tensor

from groundup.base.errors import UsageError
from groundup.layers.context import Context, document_positions
from groundup.layers.masks import key_slots


def real_tokens(context: Context, name: str) -> Tensor | None:
    """(B, T) bool, False for padding; None where there is none. A row of several documents is refused."""
    if context.documents is None:
        return None
    if bool((context.documents > 1).any()):
        raise UsageError(f"{name} sums over whole rows and cannot keep packed documents apart: one document a row")
    return context.documents != 0


@dataclass(frozen=True, eq=False)
class Compact:
    """The rows of a call with all padding moved to their ends, so that each token follows the one before it, for layers
    that read a row from left to right. All None where nothing has to move.

    Attributes:
        order: (B, T) int64, where the token of each place stood.
        back: (B, T) int64, its inverse.
        real: (B, T) bool, False for padding, at its new place.
        starts: (B, T) bool, the first tokens of documents; None in a call with a state, whose rows are one document.
        age: (B, T) int64, the number of each token within its document; None like `starts`.
    """

    order: Tensor | None = None
    back: Tensor | None = None
    real: Tensor | None = None
    starts: Tensor | None = None
    age: Tensor | None = None

    @classmethod
    def of(cls, context: Context) -> Self:
        """Made once for all layers of a call."""
        if "compact" not in context.shared:
            context.shared["compact"] = cls._make(context)
        return context.shared["compact"]

    @classmethod
    def _make(cls, context: Context) -> Self:
        if context.documents is None:
            return cls()
        order = (context.documents == 0).byte().argsort(dim=1, stable=True)
        documents = context.documents.take_along_dim(order, 1)
        moved = cls(order, order.argsort(dim=1), documents != 0)
        if context.state is not None:
            return moved
        starts = F.pad(documents[:, 1:] != documents[:, :-1], (1, 0))
        return cls(order, moved.back, moved.real, starts, document_positions(documents))

    def gather(self, x: Tensor) -> Tensor:
        """Tokens at their new places. (B, T, D) -> (B, T, D)"""
        return x if self.order is None else x.take_along_dim(self.order[..., None], 1)

    def scatter(self, y: Tensor) -> Tensor:
        """And back. (B, T, D) -> (B, T, D)"""
        return y if self.back is None else y.take_along_dim(self.back[..., None], 1)


def places(context: Context) -> tuple[Tensor, Tensor]:
    """Positions of this call's queries (B or 1, T) and of all keys (B or 1, S), within their documents."""
    return context.places, context.places if context.fresh else key_slots(context)
