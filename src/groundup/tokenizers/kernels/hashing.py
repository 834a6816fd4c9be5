"""Hash tables over arrays: open addressing, a power of two of places, the next free place after a collision.

A piece of up to 7 bytes is its own key: the bytes and their number in 64 bits. Of a longer one the key is a hash, and
who finds a key compares the bytes too, so that no two pieces are ever taken for one.
"""

from typing import Any

import numba

COMPILED: Any = {"cache": True, "nogil": True, "error_model": "numpy"}
PACKED = 7  # bytes that a key holds exactly
FREE = 0  # no piece and no pair has this key
_SPREAD = numba.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Fibonacci hashing (Knuth, volume 3, 6.4)
_STEP = numba.uint64(0x100000001B3)
_LONG = numba.uint64(1 << 63)


@numba.njit(**COMPILED)
def piece_key(data: Any, start: int, end: int) -> Any:
    """The key of data[start:end], which is not empty; never `FREE`."""
    key = numba.uint64(end - start)
    if end - start <= PACKED:
        for i in range(start, end):
            key = key << numba.uint64(8) | numba.uint64(data[i])
        return key
    for i in range(start, end):
        key = (key ^ numba.uint64(data[i])) * _STEP
        key ^= key >> numba.uint64(29)
    return key | _LONG


@numba.njit(**COMPILED)
def pair_key(left: int, right: int) -> Any:
    """The key of a pair of ids; ids are below 2^31, and 1 is added so that no key is `FREE`."""
    return numba.uint64(left + 1) << numba.uint64(32) | numba.uint64(right)


@numba.njit(**COMPILED)
def place_of(key: Any, size: int) -> Any:
    """Where to look first in a table of `size` places, a power of two."""
    spread = numba.uint64(key) * _SPREAD
    spread = (spread ^ spread >> numba.uint64(32)) * _SPREAD  # so that the first bytes of a piece count too
    return numba.int64((spread >> numba.uint64(32)) & numba.uint64(size - 1))


@numba.njit(**COMPILED)
def same(data: Any, start: int, end: int, other: Any, place: int) -> bool:
    """Whether data[start:end] stands in `other` from `place` on."""
    for i in range(end - start):  # noqa: SIM110 (no generators here)
        if data[start + i] != other[place + i]:
            return False
    return True


@numba.njit(**COMPILED)
def fill_pairs(lefts: Any, rights: Any, values: Any, keys: Any, found: Any) -> None:
    """Put each pair and its value into an empty table of keys (uint64) and values (int64)."""
    for i in range(len(lefts)):
        key = pair_key(lefts[i], rights[i])
        place = place_of(key, len(keys))
        while keys[place] != FREE and keys[place] != key:
            place = (place + 1) & (len(keys) - 1)
        keys[place], found[place] = key, values[i]
