"""Applying merges to one piece: always the earliest-learnt pair first, and of equals the leftmost.

Two ways with the same result: a plain scan for short pieces, and for long ones a heap over a linked list, whose time
grows as n log n (a megabyte of one letter is one piece).
"""

import heapq
from collections.abc import Mapping

Merges = Mapping[tuple[int, int], tuple[int, int]]  # pair of ids -> (rank, id of the merged token)

SHORT = 24
_NEVER = (2**62, -1)


def apply_merges(ids: list[int], merges: Merges) -> list[int]:
    """The ids after all merges that apply; `ids` may be changed."""
    return _scan(ids, merges) if len(ids) <= SHORT else _with_heap(ids, merges)


def _scan(ids: list[int], merges: Merges) -> list[int]:
    find = merges.get
    best = [find(pair, _NEVER) for pair in zip(ids, ids[1:], strict=False)]
    while best:
        first = min(best)
        if first is _NEVER:
            break
        place = best.index(first)
        ids[place : place + 2] = [first[1]]
        del best[place]
        if place:
            best[place - 1] = find((ids[place - 1], ids[place]), _NEVER)
        if place < len(best):
            best[place] = find((ids[place], ids[place + 1]), _NEVER)
    return ids


def _with_heap(ids: list[int], merges: Merges) -> list[int]:
    size, find = len(ids), merges.get
    following, previous = list(range(1, size + 1)), list(range(-1, size - 1))
    # An entry is rank * size + place: one small integer, ordered by rank, then from left to right.
    heap = [found[0] * size + i for i, pair in enumerate(zip(ids, ids[1:], strict=False)) if (found := find(pair))]
    heapq.heapify(heap)
    while heap:
        rank, place = divmod(heapq.heappop(heap), size)
        right = following[place]
        if ids[place] < 0 or right >= size:
            continue
        found = find((ids[place], ids[right]))
        if found is None or found[0] != rank:  # an entry from before a neighbour changed
            continue
        ids[place], ids[right] = found[1], -1
        after, before = following[right], previous[place]
        following[place] = after
        if after < size:
            previous[after] = place
            if next_found := find((ids[place], ids[after])):
                heapq.heappush(heap, next_found[0] * size + place)
        if before >= 0 and (next_found := find((ids[before], ids[place]))):
            heapq.heappush(heap, next_found[0] * size + before)
    return [number for number in ids if number >= 0]
