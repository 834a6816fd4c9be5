"""Compiling normalization rules into SentencePiece's double-array trie: `pipeline.charsmap` tells its layout."""

import struct
from collections.abc import Mapping

import numpy as np

from groundup.tokenizers.pipeline.charsmap import Rules


def write_rules(rules: Rules) -> bytes:
    """The compiled form of `rules`, which the C++ library reads too. No bytes for no rules."""
    if not rules:
        return b""
    texts, starts = bytearray(), {}
    for target in sorted(set(rules.values())):
        starts[target] = len(texts)
        texts += target.encode("utf-8") + b"\0"
    units = _Builder({source.encode("utf-8"): starts[target] for source, target in rules.items()}).units
    body = np.array(units, dtype="<u4").tobytes()
    return struct.pack("<I", len(body)) + body + bytes(texts)


Children = tuple[tuple[int, int], ...]  # (label, number of the child's own children, or the value for label 0)


class _Builder:
    """Units of a trie: equal children are stored once, and go to the first base where all their places are free."""

    BLOCK = 256
    OPEN_BLOCKS = 16  # only the last blocks are searched, so building stays linear

    def __init__(self, values: Mapping[bytes, int]):
        self.numbers: dict[Children, int] = {}
        self.units: list[int] = []
        self.free: dict[int, None] = {}  # free places, in order
        self.taken_bases = {0}  # the reference takes a root with the offset 0 for a damaged one
        self._grow()
        del self.free[0]
        root = self._number(sorted(values.items()), 0)
        self.children = list(self.numbers)
        self.bases: list[int | None] = [None] * len(self.children)
        self._attach(0, root)

    def _number(self, entries: list[tuple[bytes, int]], depth: int) -> int:
        """The number of the children of the unit that all `entries` pass through after `depth` bytes."""
        groups: dict[int, list[tuple[bytes, int]]] = {}
        for entry in entries:
            groups.setdefault(entry[0][depth] if depth < len(entry[0]) else 0, []).append(entry)
        children = tuple(
            (label, group[0][1] if label == 0 else self._number(group, depth + 1)) for label, group in groups.items()
        )
        return self.numbers.setdefault(children, len(self.numbers))

    def _attach(self, unit: int, number: int) -> None:
        """Give a unit its children, which are placed unless they already are."""
        base, children = self.bases[number], self.children[number]
        fresh = base is None
        if base is None:
            base = self.bases[number] = self._place([label for label, _ in children])
        offset = unit ^ base
        assert offset < 2**21, "a trie of more than two million units"
        self.units[unit] |= offset << 10 | (1 << 8 if children[0][0] == 0 else 0)
        for label, below in children if fresh else ():
            if label == 0:
                self.units[base] = 1 << 31 | below
            else:
                self.units[base ^ label] = label
                self._attach(base ^ label, below)

    def _place(self, labels: list[int]) -> int:
        """A base such that every base ^ label is free and no other unit has it; its places are taken."""
        while True:
            for place in self.free:
                base = place ^ labels[0]
                if base not in self.taken_bases and all(base ^ label in self.free for label in labels):
                    self.taken_bases.add(base)
                    for label in labels:
                        del self.free[base ^ label]
                    return base
            self._grow()

    def _grow(self) -> None:
        start = len(self.units)
        self.units.extend([0] * self.BLOCK)
        self.free.update(dict.fromkeys(range(start, start + self.BLOCK)))
        closed = start - (self.OPEN_BLOCKS - 1) * self.BLOCK
        for place in [place for place in self.free if place < closed]:
            del self.free[place]
