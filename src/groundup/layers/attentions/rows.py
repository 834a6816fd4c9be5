"""What attention without a mask per pair asks of a batch: rows of one document."""

from torch import Tensor

from groundup.base.errors import UsageError
from groundup.layers.context import Context
from groundup.layers.masks import key_slots


def real_tokens(context: Context, name: str) -> Tensor | None:
    """(B, T) bool, False for padding; None where there is none. A row of several documents is refused."""
    if context.documents is None:
        return None
    if bool((context.documents > 1).any()):
        raise UsageError(f"{name} sums over whole rows and cannot keep packed documents apart: one document a row")
    return context.documents != 0


def places(context: Context) -> tuple[Tensor, Tensor]:
    """Positions of this call's queries (B or 1, T) and of all keys (B or 1, S), within their documents."""
    return context.positions, context.positions if context.fresh else key_slots(context)
