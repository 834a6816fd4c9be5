"""Memories that grow with the text: keys and values of all tokens, or of those in a window."""

import torch
from torch import Tensor

from groundup.state.placement import Placement


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

    def claim(self, placement: Placement) -> tuple[Tensor, Tensor, int]:
        """For a step that writes its own keys and values: both caches, (B, K, S, d), and the size of the ring; slot s
        lies at place s mod size.
        """
        assert self.k is not None, "the first call goes through `update`"
        assert self.v is not None
        return self.k, self.v, self.max_len + 1

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
        self._count(k.shape[2], placement)
        if placement.fresh:
            return k, v
        held = min(placement.length, self.size)
        return joined if joined is not None else (self.k[:, :, :held], self.v[:, :, :held])

    def claim(self, placement: Placement) -> tuple[Tensor, Tensor, int]:
        """As of `KVCache`, for a step of one token a row."""
        assert self.k is not None, "the first call goes through `update`"
        assert self.v is not None
        self._count(1, placement)
        return self.k, self.v, self.size

    def _count(self, num_tokens: int, placement: Placement) -> None:
        self._highest = max(self._highest, placement.length)
        if placement.real is None:
            self._behind = max(0, self._behind - num_tokens)

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


class LatentCache(KVCache):
    """One vector a token that all heads share, (B, 1, max_len, width), allocated once at the first call: what latent
    attention remembers in place of keys and values.
    """

    def extend(self, new: Tensor, placement: Placement) -> Tensor:
        """New (B, 1, T, width) -> those of all tokens so far, (B, 1, S, width)"""
        return self.update(new, new[..., :0], placement)[0]


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
