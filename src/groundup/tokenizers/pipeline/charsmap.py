"""SentencePiece's table of replacements (`precompiled_charsmap`), which holds NFKC and more as one trie of bytes.

The layout, little-endian: the size of the trie in bytes (4 bytes); the trie, a double array in the form of Darts-clone
(Yata et al.), in units of 4 bytes; then replacements, each ended by a zero byte. A unit holds a label (the byte that
leads to it), whether a key ends here, and an offset to its children; a leaf holds the place of a replacement.
"""

import struct
from array import array

from groundup.base.errors import CheckpointError

_LEAF = 1 << 31


class CharsMap:
    """Looks up replacements.

    Raises:
        CheckpointError: the table is cut short or its sizes contradict each other.
    """

    def __init__(self, data: bytes):
        if len(data) < 4:
            raise CheckpointError(f"a precompiled_charsmap of {len(data)} bytes is too short to hold its size")
        (size,) = struct.unpack_from("<I", data)
        if size % 4 or not 4 <= size <= len(data) - 4:
            raise CheckpointError(f"precompiled_charsmap: a trie of {size} bytes in a table of {len(data)}")
        units = array("I" if array("I").itemsize == 4 else "L")
        units.frombytes(data[4 : 4 + size])
        if struct.pack("=I", 1) != struct.pack("<I", 1):
            units.byteswap()
        self._units = units
        self._replacements = data[4 + size :]

    def shortest(self, key: bytes) -> str | None:
        """The replacement of the shortest key that `key` begins with, or None.

        Raises:
            CheckpointError: the trie leads outside of the table, or to bytes that are not UTF-8.
        """
        units, size = self._units, len(self._units)
        node = _offset(units[0])
        for byte in key:
            node ^= byte
            if byte == 0 or node >= size:
                return None
            unit = units[node]
            if unit & (_LEAF | 0xFF) != byte:
                return None
            node ^= _offset(unit)
            if unit >> 8 & 1:
                return self._replacement(units[node] & ~_LEAF if node < size else -1)
        return None

    def _replacement(self, start: int) -> str:
        if not 0 <= start < len(self._replacements):
            raise CheckpointError("precompiled_charsmap: a replacement lies outside of the table")
        end = self._replacements.find(0, start)
        found = self._replacements[start : end if end >= 0 else None]
        try:
            return found.decode("utf-8")
        except UnicodeDecodeError:
            raise CheckpointError(f"precompiled_charsmap: the replacement {found[:40]!r} is not UTF-8") from None


def _offset(unit: int) -> int:
    return unit >> 10 << ((unit & 1 << 9) >> 6)
