"""SentencePiece's compiled normalization rules ("precompiled charsmap"), read.

A rule turns a sequence of characters into another. The file holds a double-array trie (Yata et al., 2007; the layout of
Darts-clone) over the UTF-8 of the sequences; a leaf's value says where in a row of NUL-terminated texts its replacement
begins:

    size of the trie in bytes (32 bits) | units (32 bits each) | texts

A unit of the trie: bits 0-7 its label (the byte that leads to it), bit 8 whether a key ends here, bits 10-30 the offset
of its children (times 256 if bit 9 is set), bit 31 marks the unit of a value. Unit i has its children at the base
i ^ offset(i): by byte b, base ^ b, real if its label is b; the value of a key is the child by byte 0. Units whose
children are the same share them, so the trie is a graph without cycles.

`training.charsmap_compiler` writes such maps.
"""

import functools
import re
import struct
import sys
from array import array
from collections.abc import Mapping
from typing import TYPE_CHECKING

from groundup.base.errors import CheckpointError

if TYPE_CHECKING:
    from groundup.tokenizers.pipeline.charsmap_table import Table

Rules = Mapping[str, str]
MAX_BYTES = 2**26
_LABEL = 0x800000FF  # what must be the byte, for a unit that is a child


class CharsMap:
    """Looks up replacements.

    Attributes:
        units: the trie.
        where: the map's name, for messages.

    Raises:
        CheckpointError: cut off, too large, or sizes that contradict each other.
    """

    def __init__(self, data: bytes, where: str = "precompiled_charsmap"):
        self.where = where
        if not 4 < len(data) <= MAX_BYTES:
            raise CheckpointError(f"{where}: {len(data):,} bytes are no compiled normalization map")
        (size,) = struct.unpack_from("<I", data)
        if size % 4 or not 0 < size < len(data) - 4:
            raise CheckpointError(f"{where}: the trie claims {size:,} of {len(data) - 4:,} bytes; is the file damaged?")
        units = array("I" if array("I").itemsize == 4 else "L")
        units.frombytes(data[4 : 4 + size])
        if sys.byteorder == "big":
            units.byteswap()
        self.units: list[int] = units.tolist()
        self._texts = data[4 + size :]

    @functools.cached_property
    def starts(self) -> re.Pattern[str]:
        """A regular expression for the places where a rule may apply."""
        return self._table.starts()

    def rules(self) -> Rules:
        """All rules, written out.

        Raises:
            CheckpointError: absurdly many, or damaged ones.
        """
        return self._table.rules()

    @functools.cached_property
    def _table(self) -> "Table":
        from groundup.tokenizers.pipeline.charsmap_table import Table  # numpy, which looking up does not need

        return Table(self)

    def shortest(self, key: bytes) -> str | None:
        """The replacement of the shortest rule whose sequence `key` begins with, or None.

        Raises:
            CheckpointError: the trie leads outside of the table, or to bytes that are not UTF-8.
        """
        base = self.children(0)
        for byte in key:
            unit = base ^ byte
            if not self._is_child(unit, byte):
                return None
            base = self.children(unit)
            if self.units[unit] >> 8 & 1:
                return self.replacement(base)
        return None

    def longest(self, text: str, place: int) -> tuple[int, str] | None:
        """(length, replacement) of the longest rule that fits `text` at `place`.

        Raises:
            CheckpointError: as `shortest`.
        """
        found, unit = None, 0
        base = self.children(0)
        for end in range(place, len(text)):
            for byte in text[end].encode("utf-8"):
                unit = base ^ byte
                if not self._is_child(unit, byte):
                    return found
                base = self.children(unit)
            if self.units[unit] >> 8 & 1:
                found = end + 1 - place, self.replacement(base)
        return found

    def _is_child(self, unit: int, byte: int) -> bool:
        return byte != 0 and unit < len(self.units) and self.units[unit] & _LABEL == byte

    def children(self, unit: int) -> int:
        """Where the children of a unit are: by byte b, at base ^ b."""
        found = self.units[unit]
        return unit ^ (found >> 10) << (found >> 6 & 8)

    def replacement(self, base: int) -> str:
        """What stands for a sequence that ends at the unit whose children are at `base`."""
        value = self.units[base] if base < len(self.units) else 0
        start = value & 0x7FFFFFFF
        end = self._texts.find(b"\0", start)
        if not value >> 31 or end < start:
            raise CheckpointError(f"{self.where}: a rule has no replacement; is the file damaged?")
        try:
            return self._texts[start:end].decode("utf-8")
        except UnicodeDecodeError:
            raise CheckpointError(f"{self.where}: a replacement is not UTF-8; is the file damaged?") from None


@functools.lru_cache(maxsize=8)
def read_charsmap(data: bytes, where: str = "precompiled_charsmap") -> CharsMap | None:
    """The map in `data`; None for no bytes."""
    return CharsMap(data, where) if data else None
