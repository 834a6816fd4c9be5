"""All that a model remembers about a batch of rows."""

from typing import Any

import torch
from torch import Tensor

from groundup.base.errors import UsageError
from groundup.state.caches import RollingKVCache
from groundup.state.memories import RecurrentState, SegmentMemory
from groundup.state.placement import Placement


class State:
    """All that a model remembers about a batch of rows.

    Args:
        layers: dotted module name -> what that module remembers.
        batch: rows.
        max_len: tokens a row may have.
        device: of `lengths`.

    Attributes:
        lengths: (B,) int64, the real tokens seen in each row.
    """

    def __init__(self, layers: dict[str, Any], batch: int, max_len: int, device: torch.device | str | None = None):
        self.layers, self.max_len = layers, max_len
        self.lengths = torch.zeros(batch, dtype=torch.int64, device=device)
        self._longest = 0  # an upper bound of lengths.max(), known without asking the device
        self._even = True  # whether all rows are exactly that long

    def place(self, num_tokens: int, documents: Tensor | None) -> Placement:
        """Where the next `num_tokens` tokens of each row will stand. documents (B, T) of 0 (padding) and 1, or None."""
        length = self._longest + num_tokens
        if length > self.max_len:
            length = self._exact_length(num_tokens, documents)  # padding counted above, or the longest row was dropped
        if length > self.max_len:
            raise UsageError(
                f"{num_tokens} tokens arrive and a row would then hold {length}, but the state was made for "
                f"max_len={self.max_len}: make a longer one with model.make_state(batch, max_len)"
            )
        fresh, device = self._longest == 0, self.lengths.device
        if documents is None and self._even:
            slots = torch.arange(self._longest, length, device=device)[None]
            return Placement(slots, None, self._longest, length, fresh)
        if documents is None:
            slots = self.lengths[:, None] + torch.arange(num_tokens, device=device)
            return Placement(slots, None, None, length, fresh)
        real = documents != 0
        slots = self.lengths[:, None] + (real.cumsum(1) - 1).clamp(min=0)
        return Placement(slots, real, None, length, fresh)

    def _exact_length(self, num_tokens: int, documents: Tensor | None) -> int:
        """The longest row after the next tokens. It asks the device, so only where the upper bound says overflow."""
        if not len(self.lengths):
            return num_tokens
        return int((self.lengths + (num_tokens if documents is None else (documents != 0).sum(1))).max())

    def empty_rows(self) -> Tensor | None:
        """(B,) bool: the rows that have seen nothing yet; None when there are none. It asks the device only where rows
        are of different lengths.
        """
        if self._longest == 0:
            return torch.ones_like(self.lengths, dtype=torch.bool)
        if self._even:
            return None
        empty = self.lengths == 0
        return empty if bool(empty.any()) else None

    def advance(self, placement: Placement, num_tokens: int) -> None:
        """Count the tokens of a call; the model does this when it ends."""
        self._longest = placement.length
        if placement.real is None:
            self.lengths = self.lengths + num_tokens
        else:
            self.lengths = self.lengths + placement.real.sum(1)
            self._even = False

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be named twice (beams) or dropped (finished). rows (N,) int64"""
        self.lengths = self.lengths[rows]
        for layer in self.layers.values():
            layer.select(rows)

    def trim(self, tokens: int) -> None:
        """Forget the last `tokens` tokens of every row, or all of a shorter one (rejected guesses in speculation)."""
        if any(isinstance(layer, RecurrentState | SegmentMemory) for layer in self.layers.values()):
            raise UsageError("a recurrent state cannot forget single tokens: use snapshot() and restore()")
        if not 0 <= tokens <= self._longest:
            raise UsageError(f"cannot forget {tokens} tokens: at most {self._longest} are remembered")
        rolling = [layer for layer in self.layers.values() if isinstance(layer, RollingKVCache)]
        most = min((layer.forgettable for layer in rolling), default=tokens)
        if tokens > most and tokens < self._longest:
            raise UsageError(
                f"cannot forget {tokens} tokens: a rolling cache has given the places of older ones away and can "
                f"forget {most} now; take a snapshot() before the tokens, or use model.make_state(..., spare={tokens})"
            )
        for layer in rolling:
            layer.trim(tokens)
        self.lengths = (self.lengths - tokens).clamp(min=0)
        self._longest -= tokens

    def snapshot(self) -> tuple[Tensor, int, bool, dict[str, Any]]:
        """What `restore` needs to come back to this moment; valid until `select` changes the rows, or `trim` forgets
        tokens seen before it and others take their slots.
        """
        return self.lengths, self._longest, self._even, {name: layer.snapshot() for name, layer in self.layers.items()}

    def restore(self, snapshot: tuple[Tensor, int, bool, dict[str, Any]]) -> None:
        """Return to the moment of the snapshot."""
        self.lengths, self._longest, self._even, layers = snapshot
        for name, layer in self.layers.items():
            layer.restore(layers[name])

    @property
    def nbytes(self) -> int:
        """Bytes held by all layers."""
        return sum(layer.nbytes for layer in self.layers.values())
