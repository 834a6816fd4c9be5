"""How often each piece occurs: a hash table of pieces that grows with the number of different ones alone.

The arrays have a fixed size while a kernel runs; where one is full it stops, says where, and Python makes a larger one.
"""

from typing import Any

import numba

from groundup.tokenizers.kernels.hashing import COMPILED, FREE, PACKED, piece_key, place_of, same

PIECES, BYTES = 0, 1  # places in `used`


@numba.njit(**COMPILED)
def find(key: int, data: Any, start: int, end: int, keys: Any, numbers: Any, spelled: Any, starts: Any) -> int:
    """The place in the table of the piece data[start:end], or the free one where it belongs."""
    place = place_of(key, len(keys))
    while keys[place] != FREE:
        if keys[place] == key:
            first = starts[numbers[place]]
            size = starts[numbers[place] + 1] - first
            if end - start <= PACKED or (size == end - start and same(data, start, end, spelled, first)):
                break
        place = (place + 1) & (len(keys) - 1)
    return place


@numba.njit(**COMPILED)
def count(
    data: Any,
    start: int,
    ends: Any,
    first: int,
    weights: Any,
    keys: Any,
    numbers: Any,
    spelled: Any,
    starts: Any,
    counts: Any,
    used: Any,
) -> int:
    """Count pieces number `first` and on; returns the number of the first that had no room, or of all.

    Args:
        data: uint8.
        start: where piece `first` begins.
        ends: int64, where each piece ends.
        first: the piece to begin with.
        weights: int64, how often each piece occurs; empty: once each.
        keys: uint64, the table's keys; `numbers` int32, the number of the piece at each place.
        numbers: int32.
        spelled: uint8, the different pieces, one behind the other.
        starts: int64, where each begins; the next one begins where it ends.
        counts: int64, how often each occurred.
        used: int64 (2,), how many different pieces and bytes of `spelled` there are.
    """
    for piece in range(first, len(ends)):
        end = ends[piece]
        key = piece_key(data, start, end)
        place = find(key, data, start, end, keys, numbers, spelled, starts)
        if keys[place] == FREE:
            number, filled = used[PIECES], used[BYTES]
            if 2 * number >= len(keys) or number >= len(counts) or filled + end - start > len(spelled):
                return piece
            keys[place], numbers[place] = key, number
            for i in range(end - start):
                spelled[filled + i] = data[start + i]
            starts[number + 1] = filled + end - start
            counts[number] = 0
            used[PIECES], used[BYTES] = number + 1, filled + end - start
        counts[numbers[place]] += weights[piece] if len(weights) else 1
        start = end
    return len(ends)


@numba.njit(**COMPILED)
def fill(keys: Any, numbers: Any, spelled: Any, starts: Any, pieces: int) -> None:
    """Put pieces into an empty table: they are known to be different."""
    for number in range(pieces):
        key = piece_key(spelled, starts[number], starts[number + 1])
        place = place_of(key, len(keys))
        while keys[place] != FREE:
            place = (place + 1) & (len(keys) - 1)
        keys[place], numbers[place] = key, number
