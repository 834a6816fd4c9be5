"""Memories of one size, however long the text: recurrent states, a segment, a source, numbers of a row."""

import torch
from torch import Tensor

from groundup.base.errors import UsageError
from groundup.state.placement import Placement


class RecurrentState:
    """Named tensors of fixed size, first dimension the rows (RWKV, Mamba, linear attention)."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order."""
        self.tensors = {name: tensor[rows] for name, tensor in self.tensors.items()}

    def snapshot(self) -> dict[str, Tensor]:
        """The tensors, copied."""
        return {name: tensor.clone() for name, tensor in self.tensors.items()}

    def restore(self, snapshot: dict[str, Tensor]) -> None:
        """Return to the snapshot."""
        self.tensors = {name: tensor.clone() for name, tensor in snapshot.items()}

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


class SegmentMemory:
    """The hidden vectors that entered a layer in earlier segments, (B, up to `length`, D), without gradient
    (Transformer-XL, Dai et al. 2019).

    Unlike a KVCache it is for training too: keys and values are made of it anew, so their projections learn from it. It
    takes segments without end: `max_len` of the State is only a count.
    """

    def __init__(self, length: int):
        self.length = length
        self.hidden: Tensor | None = None
        self._call: Placement | None = None
        self._before: Tensor | None = None

    def extend(self, x: Tensor, placement: Placement) -> Tensor:
        """Remembered vectors, then this segment's; and remember the last of them all. (B, T, D) -> (B, M + T, D)

        A second time within one call (activation checkpointing) it gives what it gave the first time.
        """
        if placement.start is None:
            raise UsageError("segment memory needs rows of equal length without padding: cut the text into segments")
        if placement is not self._call:
            self._call, self._before = placement, self.hidden
        seen = x if self._before is None else torch.cat((self._before.to(x.dtype), x), dim=1)
        self.hidden = seen[:, max(seen.shape[1] - self.length, 0) :].detach()
        return seen

    def update(self, k: Tensor, v: Tensor, placement: Placement) -> tuple[Tensor, Tensor]:
        """Refused: it remembers hidden vectors, not keys and values."""
        raise UsageError("a SegmentMemory belongs to a TransformerXLAttention; other attention needs a KVCache")

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order."""
        if self.hidden is not None:
            self.hidden = self.hidden[rows]

    def snapshot(self) -> Tensor | None:
        """The vectors; they are replaced, never changed."""
        return self.hidden

    def restore(self, snapshot: Tensor | None) -> None:
        """Return to the snapshot."""
        self.hidden = snapshot

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return 0 if self.hidden is None else self.hidden.nbytes


class SourceCache:
    """Keys and values of what cross-attention reads, (B, K, S, d), filled by the first call and then fixed."""

    def __init__(self) -> None:
        self.k: Tensor | None = None
        self.v: Tensor | None = None
        self.documents: Tensor | None = None

    def fill(self, k: Tensor, v: Tensor, documents: Tensor | None) -> None:
        """Keep keys and values, and which of them are padding: documents (B, S), 0 for padding, or None."""
        self.k, self.v, self.documents = k, v, documents

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be named twice. rows (N,) int64"""
        self.k, self.v, self.documents = (None if t is None else t[rows] for t in (self.k, self.v, self.documents))

    def snapshot(self) -> None:
        """Nothing: the source does not change."""

    def restore(self, snapshot: None) -> None:
        """Nothing to do, see `snapshot`."""

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return sum(t.nbytes for t in (self.k, self.v) if t is not None)


class RowValues:
    """Whole numbers of each row that its first call settles, such as where its prompt ends: named tensors, (B, 1)."""

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order."""
        self.values = {name: value[rows] for name, value in self.values.items()}

    def snapshot(self) -> dict[str, Tensor]:
        """The values; they are replaced, never changed."""
        return self.values

    def restore(self, snapshot: dict[str, Tensor]) -> None:
        """Return to the snapshot."""
        self.values = snapshot

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(value.nbytes for value in self.values.values())
