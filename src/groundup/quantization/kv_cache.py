"""Keys and values of a state in 8 or 4 bits.

    state = quantize_cache(model.make_state(batch, max_len), bits=8)

Each token's vector of each head has its own range (as FlexGen stores them, Sheng et al. 2023):

    step = (max - min) / (2^bits - 1),   q = round((x - min) / step),   x' = min + step q,   |x - x'| <= step / 2

q, step and min of a vector lie side by side as bytes, 4-bit numbers two a byte. So a cache of bytes does all that a
cache of numbers does - rows selected, a rolling window, tokens forgotten - with the same code.

Keys may have a range for each channel instead (KIVI, Liu et al. 2024): some channels of keys are large in all tokens,
and one range for a whole vector then leaves few steps for the others. Such ranges go over 32 tokens, so the latest,
unfinished 32 stay as they are.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.base.errors import UsageError
from groundup.quantization.packing import pack_pairs, unpack_pairs
from groundup.state import KVCache, LatentCache, Placement, RollingKVCache, State

Bits = Literal[4, 8]
CHANNEL_GROUP = 32


def quantize_cache(state: State, bits: int = 8, keys: Literal["token", "channel"] = "token") -> State:
    """Let a state that `model.make_state` gave keep its keys and values in fewer bits, in place.

    Recurrent states, segment memories and what an encoder gave stay as they are.

    Args:
        state: nothing is remembered in it yet.
        bits: 8 or 4.
        keys: "token": a range for each token and head. "channel": for each channel of 32 tokens, in layers that keep
            all tokens; rolling and latent caches take a range for each token whatever is asked.

    Raises:
        UsageError: other bits, something is remembered already, or no layer keeps keys and values.
    """
    if bits not in (4, 8):
        raise UsageError(f"keys and values can be kept in 8 or 4 bits, not {bits}")
    if keys not in ("token", "channel"):
        raise UsageError(f"keys have ranges per token or per channel, not per {keys!r}")
    if any(layer.nbytes for layer in state.layers.values()):
        raise UsageError("the state remembers tokens already: quantize it before the first call")
    found = {name: layer for name, layer in state.layers.items() if type(layer) in _KINDS}
    if not found:
        kept = ", ".join(sorted({type(layer).__name__ for layer in state.layers.values()})) or "nothing"
        raise UsageError(f"no layer of this model keeps keys and values (its state holds: {kept}): nothing to quantize")
    for name, layer in found.items():
        kind = ChannelKVCache if keys == "channel" and type(layer) is KVCache else _KINDS[type(layer)]
        state.layers[name] = kind(layer, bits)
    return state


class _InFewerBits:
    """What turns a cache of numbers into one of bytes: vectors are encoded on their way in, decoded on their way out.

    Args:
        cache: the empty cache whose place it takes.
        bits: 8 or 4.
    """

    def __init__(self, cache: Any, bits: int):
        self.__dict__.update(cache.__dict__)
        self.bits = bits

    def update(self, k: Tensor, v: Tensor, placement: Placement) -> tuple[Tensor, Tensor]:
        """As of the cache in full precision; the tokens of later calls see rounded ones."""
        stored = super().update(encode(k, self.bits), encode(v, self.bits), placement)  # type: ignore[misc]
        if placement.fresh:
            return k, v
        return decode(stored[0], k.shape[-1], self.bits, k.dtype), decode(stored[1], v.shape[-1], self.bits, v.dtype)


class QuantizedKVCache(_InFewerBits, KVCache):
    """A KVCache in fewer bits."""


class QuantizedRollingKVCache(_InFewerBits, RollingKVCache):
    """A RollingKVCache in fewer bits."""


class QuantizedLatentCache(_InFewerBits, LatentCache):
    """A LatentCache in fewer bits."""


class ChannelKVCache(QuantizedKVCache):
    """A KVCache whose keys have a range for each channel of 32 tokens, and whose values one for each token."""

    def __init__(self, cache: Any, bits: int):
        super().__init__(cache, bits)
        self.keys = _ChannelKeys(cache.max_len, bits)

    def update(self, k: Tensor, v: Tensor, placement: Placement) -> tuple[Tensor, Tensor]:
        _, values = super().update(k[..., :0], v, placement)
        self.keys.write(k, placement)
        return (k, v) if placement.fresh else (self.keys.read(placement.length), values)

    def select(self, rows: Tensor) -> None:
        super().select(rows)
        self.keys.select(rows)

    def snapshot(self) -> Any:
        """The unfinished groups; what is finished is never changed before it is forgotten."""
        return self.keys.recent, self.keys.group

    def restore(self, snapshot: Any) -> None:
        self.keys.recent, self.keys.group = snapshot

    @property
    def nbytes(self) -> int:
        return super().nbytes + self.keys.nbytes


class _ChannelKeys:
    """Keys of one layer in groups of 32 slots: slot s is in group s // 32.

    Attributes:
        codes: (B, K, groups + 1, d, bytes) uint8, a range for each channel; the last takes groups that are unfinished.
        recent: (B, K, 32, d), the group that each row is filling, as it is.
        group: (B,) int64, which one that is.
    """

    def __init__(self, max_len: int, bits: int):
        self.bits, self.num_groups = bits, max_len // CHANNEL_GROUP + 1
        self.codes: Tensor | None = None
        self.recent: Tensor | None = None
        self.group: Tensor | None = None

    def write(self, k: Tensor, placement: Placement) -> None:
        """Add keys (B, K, T, d)."""
        batch, heads, tokens, dim = k.shape
        if self.codes is None or self.recent is None or self.group is None:
            self._allocate(k)
        assert self.codes is not None
        slots = placement.slots.expand(batch, -1)
        start = slots[:, 0]
        stop = start + (tokens if placement.real is None else placement.real.sum(1))
        first = start // CHANNEL_GROUP
        # The groups that the call touches, from the first one's first slot: (B, K, n * 32, d), one more for padding.
        count = (CHANNEL_GROUP + tokens - 1) // CHANNEL_GROUP + 1
        window = k.new_zeros(batch, heads, count * CHANNEL_GROUP + 1, dim)
        window[:, :, :CHANNEL_GROUP] = self._begun(first)
        index = slots - first[:, None] * CHANNEL_GROUP
        if placement.real is not None:
            index = torch.where(placement.real, index, count * CHANNEL_GROUP)
        window.scatter_(2, index[:, None, :, None].expand_as(k), k)
        groups = window[:, :, :-1].unflatten(2, (count, CHANNEL_GROUP))

        numbers = first[:, None] + torch.arange(count, device=k.device)
        finished = (numbers + 1) * CHANNEL_GROUP <= stop[:, None]
        new = encode(groups.mT, self.bits)
        self.codes.scatter_(2, _over(torch.where(finished, numbers, self.num_groups), new), new)
        self.group = stop // CHANNEL_GROUP
        open_group = (self.group - first)[:, None]
        self.recent = groups.gather(2, _over(open_group, groups[:, :, :1])).squeeze(2)

    def _begun(self, first: Tensor) -> Tensor:
        """What the groups `first` (B,) hold: as they are where they were unfinished, rounded where tokens were
        forgotten. (B, K, 32, d)
        """
        assert self.codes is not None
        assert self.recent is not None
        assert self.group is not None
        if torch.equal(first, self.group):
            return self.recent
        rounded = self.codes.gather(2, _over(first[:, None], self.codes[:, :, :1])).squeeze(2)
        rounded = decode(rounded, CHANNEL_GROUP, self.bits, self.recent.dtype).mT
        return torch.where((first == self.group)[:, None, None, None], self.recent, rounded)

    def read(self, length: int) -> Tensor:
        """The keys of slots 0 .. length - 1, (B, K, length, d)"""
        assert self.codes is not None
        assert self.recent is not None
        assert self.group is not None
        stored = self.codes[:, :, : length // CHANNEL_GROUP + 1]
        keys = decode(stored, CHANNEL_GROUP, self.bits, self.recent.dtype).mT.flatten(2, 3)
        slots = self.group[:, None] * CHANNEL_GROUP + torch.arange(CHANNEL_GROUP, device=keys.device)
        keys = keys.scatter(2, slots[:, None, :, None].expand_as(self.recent), self.recent)
        return keys[:, :, :length]

    def _allocate(self, k: Tensor) -> None:
        batch, heads, _, dim = k.shape
        self.recent = k.new_zeros(batch, heads, CHANNEL_GROUP, dim)
        self.group = torch.zeros(batch, dtype=torch.int64, device=k.device)
        width = encode(self.recent.mT, self.bits).shape[-1]
        self.codes = k.new_zeros(batch, heads, self.num_groups + 1, dim, width, dtype=torch.uint8)

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order."""
        if self.codes is not None and self.recent is not None and self.group is not None:
            self.codes, self.recent, self.group = self.codes[rows], self.recent[rows], self.group[rows]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(t.nbytes for t in (self.codes, self.recent, self.group) if t is not None)


_KINDS: dict[type, Any] = {
    KVCache: QuantizedKVCache,
    RollingKVCache: QuantizedRollingKVCache,
    LatentCache: QuantizedLatentCache,
}


def encode(x: Tensor, bits: int) -> Tensor:
    """Vectors (..., d) -> bytes (..., ceil(d bits / 8) + two numbers of the dtype of x) uint8: q, step, min."""
    if not x.shape[-1]:  # a latent cache keeps no values
        return x.to(torch.uint8)
    levels = 2**bits - 1
    low, high = x.aminmax(dim=-1, keepdim=True)
    # the step of what is stored: in half precision the smallest number is rounded too
    step = ((high.float() - low.float()) / levels).to(x.dtype)
    q = ((x.float() - low.float()) / torch.where(step > 0, step, 1).float()).round().clamp(0, levels).to(torch.uint8)
    packed = q if bits == 8 else pack_pairs(F.pad(q, (0, q.shape[-1] % 2)))
    return torch.cat((packed, torch.cat((step, low), dim=-1).view(torch.uint8)), dim=-1)


def decode(stored: Tensor, dim: int, bits: int, dtype: torch.dtype) -> Tensor:
    """What `encode` made of vectors of `dim` numbers of a dtype -> (..., dim)"""
    if not dim:
        return stored.to(dtype)
    width = dim if bits == 8 else (dim + 1) // 2
    packed = stored[..., :width]
    q = packed if bits == 8 else unpack_pairs(packed)[..., :dim]
    step, low = stored[..., width:].contiguous().view(dtype).split(1, dim=-1)
    return torch.addcmul(low, step, q.to(dtype))


def _over(index: Tensor, like: Tensor) -> Tensor:
    """Index (B, n) for dimension 2 of a tensor, in the shape of `like` (B, K, n, ...)."""
    return index.view(len(index), 1, -1, *[1] * (like.dim() - 3)).expand(-1, like.shape[1], -1, *like.shape[3:])
