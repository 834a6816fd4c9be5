"""Where tokens stand in the rows of a state, and what every layer's memory can do."""

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the tokens of one call stand in the rows of a state.

    Attributes:
        slots: (B, T) or (1, T) int64, the slot of each token; a padding token has that of the token before it.
        real: (B, T) bool, False for padding; None when there is none.
        start: the common first slot when all rows are as long and there is no padding; None otherwise.
        length: slots in use after the call, at most; the number of keys to look at.
        fresh: nothing was remembered before.
        keys: (B, S) or (1, S) int64, the slots of the keys that a layer gets back; None for 0 .. length - 1.
    """

    slots: Tensor
    real: Tensor | None
    start: int | None
    length: int
    fresh: bool
    keys: Tensor | None = None


class LayerState(Protocol):
    """What one module remembers."""

    def update(self, k: Tensor, v: Tensor, placement: Placement) -> tuple[Tensor, Tensor]:
        """Add this call's keys and values; the ones to attend to come back."""
        ...

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order."""
        ...

    def snapshot(self) -> Any:
        """What `restore` needs to come back to this moment."""
        ...

    def restore(self, snapshot: Any) -> None:
        """Return to the moment of the snapshot."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        ...
