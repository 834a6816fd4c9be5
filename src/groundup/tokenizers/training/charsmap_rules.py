"""SentencePiece's compiled normalization rules ("precompiled charsmap"), read and written.

A rule turns a sequence of characters into another. The file holds a double-array trie (Yata et al., 2007; the layout of
Darts-clone) over the UTF-8 of the sequences; a leaf's value says where in a row of NUL-terminated texts its replacement
begins:

    size of the trie in bytes (32 bits) | units (32 bits each) | texts

A unit of the trie: bits 0-7 its label (the byte that leads to it), bit 8 whether a key ends here, bits 10-30 the offset
of its children (times 256 if bit 9 is set), bit 31 marks the unit of a value. Unit i has its children at the base
i ^ offset(i): by byte b, base ^ b, real if its label is b; the value of a key is the child by byte 0. Units whose
children are the same share them, so the trie is a graph without cycles.
"""

import functools
import re
import struct
from collections.abc import Iterable, Mapping

import numpy as np

from groundup.base.errors import CheckpointError

Rules = Mapping[str, str]
MAX_BYTES = 2**26
MAX_RULES = 2**21


class CharsMap:
    """Rules as they stand in a compiled map; the longest rule that fits at a place is the one that applies.

    Attributes:
        starts: a regular expression for the places where a rule may apply.

    Raises:
        CheckpointError: cut off, too large, or not a trie; `where` names the map.
    """

    def __init__(self, data: bytes, where: str = "precompiled_charsmap"):
        self.where = where
        if not 4 < len(data) <= MAX_BYTES:
            raise CheckpointError(f"{where}: {len(data):,} bytes are no compiled normalization map")
        (size,) = struct.unpack_from("<I", data)
        if size % 4 or not 0 < size < len(data) - 4:
            raise CheckpointError(f"{where}: the trie claims {size:,} of {len(data) - 4:,} bytes; is the file damaged?")
        self._array = np.frombuffer(data, "<u4", size // 4, 4)
        self._units: list[int] = self._array.tolist()
        self._texts = data[4 + size :]
        self.starts = self._pattern()

    def longest(self, text: str, place: int) -> tuple[int, str] | None:
        """(length, replacement) of the longest rule that fits `text` at `place`."""
        units, size = self._units, len(self._units)
        found, unit = None, 0
        base = _base(0, units[0])
        for end in range(place, len(text)):
            for byte in text[end].encode("utf-8"):
                unit = base ^ byte
                if unit >= size or units[unit] & 0x800000FF != byte or not byte:
                    return found
                base = _base(unit, units[unit])
            if units[unit] >> 8 & 1:
                found = end + 1 - place, self._replacement(base)
        return found

    def _replacement(self, base: int) -> str:
        value = self._units[base] if base < len(self._units) else 0
        start = value & 0x7FFFFFFF
        end = self._texts.find(b"\0", start)
        if not value >> 31 or end < start:
            raise CheckpointError(f"{self.where}: a rule has no replacement; is the file damaged?")
        try:
            return self._texts[start:end].decode("utf-8")
        except UnicodeDecodeError:
            raise CheckpointError(f"{self.where}: a replacement is not UTF-8; is the file damaged?") from None

    def rules(self) -> Rules:
        """All rules, written out.

        Raises:
            CheckpointError: more than `MAX_RULES`.
        """
        rules: dict[str, str] = {}
        keys, units = [""], np.array([0])
        while len(units) and len(rules) + len(units) <= MAX_RULES:
            parents, characters, units = self._below(units)
            keys = [keys[parent] + chr(code) for parent, code in zip(parents, characters, strict=True)]
            for place in np.flatnonzero(self._array[units] >> 8 & 1):
                rules[keys[place]] = self._replacement(_base(int(units[place]), self._units[units[place]]))
        if len(units):
            raise CheckpointError(f"{self.where}: more than {MAX_RULES:,} rules; such a map cannot be meant")
        return rules

    def _pattern(self) -> re.Pattern[str]:
        """Where a rule may apply: a character with a rule of its own, or any before one that continues a rule."""
        _, characters, units = self._below(np.array([0]))
        single = characters[(self._array[units] >> 8 & 1) == 1]
        continuing: set[int] = set()
        seen, frontier = np.array([], dtype=np.int64), self._distinct(units)
        while len(frontier):
            seen = np.union1d(seen, self._bases(frontier))
            _, following, units = self._below(frontier)
            continuing.update(following.tolist())
            frontier = self._distinct(units)
            frontier = frontier[~np.isin(self._bases(frontier), seen)]
        pair = f"|(?s:.)(?=[{_class(continuing)}])" if continuing else ""
        return re.compile(f"[{_class(single)}]{pair}")

    def _distinct(self, units: np.ndarray) -> np.ndarray:
        """One unit for each base."""
        return units[np.unique(self._bases(units), return_index=True)[1]]

    def _bases(self, units: np.ndarray) -> np.ndarray:
        found = self._array[units]
        return units ^ ((found >> 10).astype(np.int64) << ((found >> 6) & 8).astype(np.int64))

    def _below(self, units: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One character further: (place of the parent in `units`, code of the character, unit), for all at once."""
        origin, code, left = np.arange(len(units)), np.zeros(len(units), np.int64), np.full(len(units), -1)
        done: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for _ in range(4):  # a character has at most 4 bytes
            which, byte, units = self._children(units)
            origin, before = origin[which], left[which]
            head = np.select([byte < 0x80, byte < 0xC2, byte < 0xE0, byte < 0xF0, byte < 0xF5], [0, 9, 1, 2, 3], 9)
            left = np.where(before < 0, head, np.where((byte & 0xC0) == 0x80, before - 1, 9))
            bits = np.where(
                before < 0, byte & np.select([head == 0, head == 1, head == 2], [0x7F, 31, 15], 7), byte & 63
            )
            code = code[which] << 6 | bits
            ready = (left == 0) & (code < 0x110000) & ((code < 0xD800) | (code > 0xDFFF))
            done.append((origin[ready], code[ready], units[ready]))
            going = (left > 0) & (left < 9)
            origin, code, left, units = origin[going], code[going], left[going], units[going]
        return _joined(done)

    def _children(self, units: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One byte further: (place of the parent in `units`, byte, unit)."""
        if len(units) > MAX_RULES:
            raise CheckpointError(f"{self.where}: more than {MAX_RULES:,} rules; such a map cannot be meant")
        found, labels = [], self._array & np.uint32(0x800000FF)
        for start in range(0, len(units), 4096):  # 8 MB at a time
            part = units[start : start + 4096]
            children = self._bases(part)[:, None] ^ np.arange(1, 256)
            real = (children < len(labels)) & (labels[np.minimum(children, len(labels) - 1)] == np.arange(1, 256))
            parent, which = np.nonzero(real)
            found.append((parent + start, which + 1, children[parent, which]))
        return _joined(found)


def _joined(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if not parts:
        return (empty := np.array([], dtype=np.int64)), empty, empty
    first, second, third = (np.concatenate(column) for column in zip(*parts, strict=True))
    return first, second, third


def _base(place: int, unit: int) -> int:
    return place ^ (unit >> 10) << (unit >> 6 & 8)


def _class(codes: Iterable[int]) -> str:
    """The inside of a character class; with all characters beyond U+FFFF, which `re` is slow to tell apart."""
    return "".join(re.escape(chr(code)) for code in sorted(codes) if code < 0x10000) + "\U00010000-\U0010ffff"


@functools.lru_cache(maxsize=8)
def read_charsmap(data: bytes, where: str = "precompiled_charsmap") -> CharsMap | None:
    """The map in `data`; None for no bytes."""
    return CharsMap(data, where) if data else None


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
