"""All rules of a compiled normalization map at once, level by level over the whole trie as arrays."""

import re
from collections.abc import Iterable

import numpy as np

from groundup.base.errors import CheckpointError
from groundup.tokenizers.pipeline.charsmap import CharsMap, Rules

MAX_RULES = 2**21


class Table:
    """A map's trie as an array."""

    def __init__(self, charsmap: CharsMap):
        self._map = charsmap
        self._array = np.array(charsmap.units, dtype=np.uint32)

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
                rules[keys[place]] = self._map.replacement(self._map.children(int(units[place])))
        if len(units):
            raise CheckpointError(f"{self._map.where}: more than {MAX_RULES:,} rules; such a map cannot be meant")
        return rules

    def starts(self) -> re.Pattern[str]:
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
            raise CheckpointError(f"{self._map.where}: more than {MAX_RULES:,} rules; such a map cannot be meant")
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


def _class(codes: Iterable[int]) -> str:
    """The inside of a character class; with all characters beyond U+FFFF, which `re` is slow to tell apart."""
    return "".join(re.escape(chr(code)) for code in sorted(codes) if code < 0x10000) + "\U00010000-\U0010ffff"
