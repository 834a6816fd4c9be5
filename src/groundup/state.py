"""What a model remembers between calls.

`model.make_state(batch, max_len)` gives a State: one LayerState per module that remembers, under the module's dotted
name. It is passed to `model(x, state=state)`, which updates it in place, and is never stored in a module.

A row of a key-value cache is compact: the slot of a token is the number of real tokens of its row before it, and
padding takes no slot. So rows of different lengths live side by side, whichever side they were padded on. Where a
layer sees a window only, a rolling cache keeps the tokens of the window and no others.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from groundup.base.errors import UsageError


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


class KVCache:
    """Keys and values of all tokens so far, (B, K, max_len, d) each, allocated once at the first call."""

    def __init__(self, max_len: int):
        self.max_len = max_len
        self.k: Tensor | None = None
        self.v: Tensor | None = None

    def update(self, k: Tensor, v: Tensor, placement: Placement) -> tuple[Tensor, Tensor]:
        """K and v (B, K, T, d) -> all keys and values, (B, K, S, d); those of a first call come back as they are."""
        if self.k is None or self.v is None:
            self.k, self.v = self._allocate(k), self._allocate(v)
        self._write(self.k, k, placement)
        self._write(self.v, v, placement)
        if placement.fresh:
            return k, v
        return self.k[:, :, : placement.length], self.v[:, :, : placement.length]

    def _allocate(self, new: Tensor) -> Tensor:
        # Zeros, not empty: a slot that no mask allows still enters the weighted sum as 0 * value. One slot more than
        # max_len takes the padding.
        batch, heads, _, dim = new.shape
        return new.new_zeros(batch, heads, self.max_len + 1, dim)

    def _write(self, cache: Tensor, new: Tensor, placement: Placement) -> None:
        if placement.start is not None:
            cache[:, :, placement.start : placement.start + new.shape[2]] = new
            return
        slots = placement.slots.expand(new.shape[0], -1)
        if placement.real is not None:
            slots = torch.where(placement.real, slots, self.max_len)
        cache.scatter_(2, slots[:, None, :, None].expand_as(new), new)

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be named twice. rows (N,) int64"""
        if self.k is not None and self.v is not None:
            self.k, self.v = self.k[rows], self.v[rows]

    def snapshot(self) -> None:
        """Nothing: what lies beyond a row's length is never looked at and is written over."""

    def restore(self, snapshot: None) -> None:
        """Nothing to do, see `snapshot`."""

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return sum(t.nbytes for t in (self.k, self.v) if t is not None)


class RollingKVCache:
    """Keys and values of the last tokens alone: slot s lies at place s mod size (Jiang et al. 2023, Mistral 7B).

    Memory is (B, K, size + 1, d) for keys and for values, however long the text grows. A long prompt is read in chunks
    of any size (pre-fill chunking): a chunk attends to the window before it and to itself, and then takes its places.

    Args:
        window: tokens that a query sees, itself included.
        max_len: tokens a row may have.
    """

    def __init__(self, window: int, max_len: int):
        self.window, self.max_len, self.size = window, max_len, min(window, max_len)
        self.k: Tensor | None = None
        self.v: Tensor | None = None
        self._highest = 0  # an upper bound of the tokens that any row ever had
        self._behind = 0  # an upper bound of the tokens by which a row is shorter than it was at its longest

    def reserve(self, spare: int) -> None:
        """Keep so many tokens besides the window: `State.trim` can forget as many more. Before the first call only."""
        assert self.k is None, "the places are taken already"
        self.size = min(self.window + spare, self.max_len)

    @property
    def ring(self) -> tuple[int, int]:
        """What decides which keys come back: layers that are alike in it get the same slots."""
        return self.size, self.window

    def update(self, k: Tensor, v: Tensor, placement: Placement) -> tuple[Tensor, Tensor]:
        """K and v (B, K, T, d) -> the keys and values of the slots `keys(placement)`, (B, K, S, d) each; those of a
        first call come back as they are.
        """
        if self.k is None or self.v is None:
            self.k, self.v = self._allocate(k), self._allocate(v)
        if placement.fresh:
            self._highest = self._behind = 0
        joined = None
        if not placement.fresh and k.shape[2] > 1:  # before the window's oldest tokens lose their places
            joined = self._join(self.k, k, placement), self._join(self.v, v, placement)
        self._write(self.k, k, placement)
        self._write(self.v, v, placement)
        self._highest = max(self._highest, placement.length)
        if placement.real is None:
            self._behind = max(0, self._behind - k.shape[2])
        if placement.fresh:
            return k, v
        held = min(placement.length, self.size)
        return joined if joined is not None else (self.k[:, :, :held], self.v[:, :, :held])

    def keys(self, placement: Placement) -> Tensor:
        """The slots of the keys that `update` returns, (B or 1, S) int64. A slot that a row has not reached stands for
        a key that is not there; it lies after all of the row's tokens.
        """
        slots = placement.slots
        if slots.shape[1] > 1:
            count = min(placement.length, self.window - 1 + slots.shape[1])
            return self._oldest(slots) + torch.arange(count, device=slots.device)
        places = torch.arange(min(placement.length, self.size), device=slots.device)
        held = slots - (slots - places) % self.size  # the last slot at this place: slots = places (mod size)
        return torch.where(held < 0, held + self.size, held)

    def _oldest(self, slots: Tensor) -> Tensor:
        """The first slot that a call's first token sees, (B or 1, 1)."""
        return (slots[:, :1] - (self.window - 1)).clamp(min=0)

    def _join(self, ring: Tensor, new: Tensor, placement: Placement) -> Tensor:
        """The tokens before a chunk and the chunk in the order of their slots, (B, K, S, d)."""
        slots, oldest = placement.slots, self._oldest(placement.slots)
        count = min(placement.length, self.window - 1 + new.shape[2])
        # One more than is returned: it takes the padding.
        places = (oldest + torch.arange(count + 1, device=slots.device)) % self.size  # (B or 1, S + 1)
        joined = take(ring, places)
        index = slots - oldest
        if placement.real is not None:
            index = torch.where(placement.real, index, count)
        put(joined, new, index)
        return joined[:, :, :count]

    def _allocate(self, new: Tensor) -> Tensor:
        # Zeros and one place more than the size, as in KVCache.
        batch, heads, _, dim = new.shape
        return new.new_zeros(batch, heads, self.size + 1, dim)

    def _write(self, ring: Tensor, new: Tensor, placement: Placement) -> None:
        new, slots = new[:, :, -self.size :] if placement.start is not None else new, placement.slots
        if placement.start is not None:
            return put(ring, new, slots[:, -self.size :] % self.size)
        keep = slots > slots[:, -1:] - self.size  # of two tokens for one place, the later one
        if placement.real is not None:
            keep = keep & placement.real
        put(ring, new, torch.where(keep, slots % self.size, self.size))

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be named twice. rows (N,) int64"""
        if self.k is not None and self.v is not None:
            self.k, self.v = self.k[rows], self.v[rows]

    @property
    def forgettable(self) -> int:
        """How many tokens can be forgotten: those whose going leaves the whole window before the next token."""
        if self._highest <= self.size:
            return self._highest
        return max(0, self.size - self.window + 1 - self._behind)

    def trim(self, tokens: int) -> None:
        """Count tokens that `State.trim` forgets."""
        self._behind += tokens

    def snapshot(self) -> tuple[Tensor | None, Tensor | None, int, int]:
        """Keys and values, copied: later tokens take the places of earlier ones."""
        k, v = (None if t is None else t.clone() for t in (self.k, self.v))
        return k, v, self._highest, self._behind

    def restore(self, snapshot: tuple[Tensor | None, Tensor | None, int, int]) -> None:
        """Return to the snapshot."""
        k, v, self._highest, self._behind = snapshot
        self.k, self.v = (None if t is None else t.clone() for t in (k, v))

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return sum(t.nbytes for t in (self.k, self.v) if t is not None)


def take(values: Tensor, places: Tensor) -> Tensor:
    """Values (B, K, N, d) at places (B or 1, S) -> (B, K, S, d)"""
    if len(places) == 1:
        return values[:, :, places[0]]
    batch, heads, _, dim = values.shape
    return values.gather(2, places[:, None, :, None].expand(batch, heads, -1, dim))


def put(values: Tensor, new: Tensor, places: Tensor) -> None:
    """Write new (B, K, T, d) into values (B, K, N, d) at places (B or 1, T)."""
    if len(places) == 1:
        values[:, :, places[0]] = new
    else:
        values.scatter_(2, places[:, None, :, None].expand_as(new), new)


def kv_cache(max_len: int, window: int | None = None) -> "KVCache | RollingKVCache":
    """The cache of an attention layer: rolling where its window is shorter than the longest row."""
    return KVCache(max_len) if window is None or window >= max_len else RollingKVCache(window, max_len)


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


class LatentCache(KVCache):
    """One vector a token that all heads share, (B, 1, max_len, width), allocated once at the first call: what latent
    attention remembers in place of keys and values.
    """

    def extend(self, new: Tensor, placement: Placement) -> Tensor:
        """New (B, 1, T, width) -> those of all tokens so far, (B, 1, S, width)"""
        return self.update(new, new[..., :0], placement)[0]


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
