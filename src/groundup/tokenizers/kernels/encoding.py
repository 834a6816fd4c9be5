"""Pieces to ids: a piece that is a token as a whole is looked up, any other is merged (as `merging.apply_merges` does).

Both ways of merging choose the earliest-learnt pair first and of equals the leftmost: a scan for short pieces, a heap
over a linked list for long ones, whose time grows as n log n.
"""

from typing import Any

import numba
import numpy as np

from groundup.tokenizers.kernels.hashing import COMPILED, FREE, PACKED, pair_key, piece_key, place_of, same

SHORT = 40  # bytes that are merged by scanning
ID_BITS = 24
ID_MASK = (1 << ID_BITS) - 1
NEVER = np.int64(2**62)


@numba.njit(**COMPILED)
def value_of(left: int, right: int, keys: Any, values: Any) -> Any:
    """Rank << 24 | merged id of a pair, or `NEVER`."""
    key = pair_key(left, right)
    place = place_of(key, len(keys))
    while keys[place] != FREE:
        if keys[place] == key:
            return values[place]
        place = (place + 1) & (len(keys) - 1)
    return NEVER


@numba.njit(**COMPILED)
def scan(ids: Any, size: int, best: Any, keys: Any, values: Any) -> int:
    """Merge ids[:size] in place and return how many are left; `best` has room for a value of each pair."""
    for i in range(size - 1):
        best[i] = value_of(ids[i], ids[i + 1], keys, values)
    while size > 1:
        place, smallest = 0, best[0]
        for i in range(1, size - 1):
            if best[i] < smallest:
                place, smallest = i, best[i]
        if smallest == NEVER:
            break
        ids[place] = smallest & ID_MASK
        size -= 1
        for i in range(place + 1, size):
            ids[i] = ids[i + 1]
            best[i - 1] = best[i]
        if place > 0:
            best[place - 1] = value_of(ids[place - 1], ids[place], keys, values)
        if place < size - 1:
            best[place] = value_of(ids[place], ids[place + 1], keys, values)
    return size


@numba.njit(**COMPILED)
def push(heap: Any, size: int, entry: Any) -> None:
    """Add an entry to a heap of `size`, the smallest first."""
    while size > 0:
        above = (size - 1) >> 1
        if heap[above] <= entry:
            break
        heap[size] = heap[above]
        size = above
    heap[size] = entry


@numba.njit(**COMPILED)
def pop(heap: Any, size: int) -> int:
    """Take the smallest entry from a heap of `size`."""
    first, last = heap[0], heap[size - 1]
    size -= 1
    place = 0
    while 2 * place + 1 < size:
        below = 2 * place + 1
        if below + 1 < size and heap[below + 1] < heap[below]:
            below += 1
        if heap[below] >= last:
            break
        heap[place] = heap[below]
        place = below
    heap[place] = last
    return first


@numba.njit(**COMPILED)
def with_heap(ids: Any, size: int, keys: Any, values: Any) -> int:
    """`scan` for long pieces. An entry is rank * size + place; one outdated by a neighbour's change is skipped."""
    heap, entries = np.empty(3 * size, np.int64), 0  # each merge takes one entry's place and makes at most two
    following, previous = np.empty(size, np.int64), np.empty(size, np.int64)
    for i in range(size):
        following[i], previous[i] = i + 1, i - 1
        value = value_of(ids[i], ids[i + 1], keys, values) if i + 1 < size else NEVER
        if value != NEVER:
            push(heap, entries, (value >> ID_BITS) * size + i)
            entries += 1
    while entries:
        entry = pop(heap, entries)
        entries -= 1
        rank, place = entry // size, entry % size
        right = following[place]
        if ids[place] < 0 or right >= size:
            continue
        value = value_of(ids[place], ids[right], keys, values)
        if value == NEVER or value >> ID_BITS != rank:
            continue
        ids[place], ids[right] = value & ID_MASK, -1
        after, before = following[right], previous[place]
        following[place] = after
        if after < size:
            previous[after] = place
            value = value_of(ids[place], ids[after], keys, values)
            if value != NEVER:
                push(heap, entries, (value >> ID_BITS) * size + place)
                entries += 1
        if before >= 0:
            value = value_of(ids[before], ids[place], keys, values)
            if value != NEVER:
                push(heap, entries, (value >> ID_BITS) * size + before)
                entries += 1
    kept = 0
    for i in range(size):
        if ids[i] >= 0:
            ids[kept] = ids[i]
            kept += 1
    return kept


@numba.njit(**COMPILED)
def find_piece(key: int, data: Any, start: int, end: int, keys: Any, tokens: Any, spelled: Any, starts: Any) -> int:
    """The id of the token that data[start:end] is, or -1. Token n is spelled[starts[n]:starts[n + 1]]."""
    place = place_of(key, len(keys))
    while keys[place] != FREE:
        if keys[place] == key:
            token = tokens[place]
            if end - start <= PACKED:
                return token
            first = starts[token]
            if starts[token + 1] - first == end - start and same(data, start, end, spelled, first):
                return token
        place = (place + 1) & (len(keys) - 1)
    return -1


@numba.njit(**COMPILED)
def fill_pieces(chosen: Any, spelled: Any, starts: Any, keys: Any, tokens: Any) -> None:
    """Put the tokens `chosen` into an empty table for `find_piece`."""
    for token in chosen:
        key = piece_key(spelled, starts[token], starts[token + 1])
        place = place_of(key, len(keys))
        while keys[place] != FREE:
            place = (place + 1) & (len(keys) - 1)
        keys[place], tokens[place] = key, token


@numba.njit(**COMPILED)
def merge(data: Any, start: int, end: int, byte_ids: Any, keys: Any, values: Any, ids: Any, best: Any) -> int:
    """Put the ids of data[start:end] into `ids`; returns how many there are."""
    size = end - start
    for i in range(size):
        ids[i] = byte_ids[data[start + i]]
    return scan(ids, size, best, keys, values) if size <= SHORT else with_heap(ids, size, keys, values)


@numba.njit(**COMPILED)
def reached(spelled: Any, starts: Any, byte_ids: Any, keys: Any, values: Any, found: Any) -> None:
    """Set found[n] where the merges of token n's bytes end in token n, so that it may be looked up as a whole."""
    best = np.empty(SHORT, np.int64)
    for token in range(len(starts) - 1):
        start, end = starts[token], starts[token + 1]
        found[token] = end > start
        for i in range(start, end):
            found[token] &= byte_ids[spelled[i]] >= 0
        if found[token]:
            ids = np.empty(end - start, np.int32)
            found[token] = merge(spelled, start, end, byte_ids, keys, values, ids, best) == 1 and ids[0] == token


@numba.njit(**COMPILED)
def encode(
    data: Any,
    ends: Any,
    pieces: Any,
    byte_ids: Any,
    pair_keys: Any,
    pair_values: Any,
    piece_keys: Any,
    piece_tokens: Any,
    spelled: Any,
    starts: Any,
    out: Any,
    out_ends: Any,
) -> None:
    """Put the ids of the pieces that end at `ends` into `out`, text after text.

    A piece seen before in `data` is copied from where its ids stand: `memory` knows, at the place of its key, where
    it began and ended, where its ids began and how many there are. Each new piece takes the place of an older one.

    Args:
        data: uint8.
        ends: int64, where each piece ends.
        pieces: int64, how many pieces there are up to the end of each text.
        byte_ids: int32 (256,), the id of each byte.
        pair_keys: uint64, with `pair_values` the table of `fill_pairs`.
        pair_values: int64, rank << 24 | id.
        piece_keys: uint64, with the next three the table of `fill_pieces`.
        piece_tokens: int32.
        spelled: uint8, the bytes of all tokens.
        starts: int64, where each token begins in `spelled`.
        out: int32, room for an id for each byte.
        out_ends: int64, filled with how many ids there are up to the end of each text.
    """
    best, count, start, piece = np.empty(SHORT, np.int64), 0, 0, 0
    places = 64
    while places < 8192 and places < len(ends):
        places *= 2
    known, memory = np.zeros(places, np.uint64), np.empty((places, 4), np.int64)
    for text in range(len(pieces)):
        while piece < pieces[text]:
            end = ends[piece]
            piece += 1
            key = piece_key(data, start, end)
            token = find_piece(key, data, start, end, piece_keys, piece_tokens, spelled, starts)
            if token >= 0:
                out[count] = token
                count += 1
                start = end
                continue
            place = place_of(key, places)
            old = memory[place]
            if known[place] != key or old[1] - old[0] != end - start or not same(data, start, end, data, old[0]):
                ids = out[count : count + end - start]
                made = merge(data, start, end, byte_ids, pair_keys, pair_values, ids, best)
                known[place] = key
                old[0], old[1], old[2], old[3] = start, end, count, made
            else:
                for i in range(old[3]):
                    out[count + i] = out[old[2] + i]
            count += old[3]
            start = end
        out_ends[text] = count
