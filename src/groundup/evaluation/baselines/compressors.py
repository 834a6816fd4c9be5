"""gzip and xz as models of text: the bits of what they write.

A compressor that sees one short document starts from nothing. So there are two figures:

- `bits(document)` is conditional: what the document adds when it is compressed behind the training text that the
  compressor can still see, C(t + d) - C(t). gzip sees 32 KiB back (t is the last 32 KiB of training text, given as a
  preset dictionary); xz sees as far as its dictionary of 64 MiB (t is the last `memory` bytes).
- `alone(documents)` compresses all held-out documents as one file, without training text.
"""

import lzma
import zlib
from collections.abc import Sequence
from typing import Self

from groundup.evaluation.baselines.baseline import NotFitted, Symbols

WINDOW = 32768


class Gzip:
    """DEFLATE at level 9 (RFC 1951), without gzip's header and check sum."""

    name = "gzip"

    def __init__(self) -> None:
        self._text: bytes | None = None

    def fit(self, documents: Sequence[Symbols]) -> Self:
        """Keep the last 32 KiB."""
        self._text = _joined(documents)[-WINDOW:]
        return self

    def bits(self, document: Symbols) -> float:
        """Size of the document with the training text as preset dictionary."""
        if self._text is None:
            raise NotFitted(self.name)
        return 8.0 * _deflated(bytes(document), self._text)

    def alone(self, documents: Sequence[Symbols]) -> float:
        """Bits of all documents as one file."""
        return 8.0 * _deflated(_joined(documents), b"")


class Xz:
    """LZMA2 at its strongest preset with a dictionary of 64 MiB, without the container's header."""

    name = "xz"

    def __init__(self, memory: int = 1 << 20):
        self.memory = memory
        self._text: bytes | None = None
        self._size = 0

    def fit(self, documents: Sequence[Symbols]) -> Self:
        """Keep the last `memory` bytes, and how small they become."""
        self._text = _joined(documents)[-self.memory :]
        self._size = _packed(self._text)
        return self

    def bits(self, document: Symbols) -> float:
        """C(t + d) - C(t). Each call compresses the training text again, so prefer `behind` for many documents."""
        return self.behind([document])

    def behind(self, documents: Sequence[Symbols]) -> float:
        """Bits of all documents, one after the other, behind the training text."""
        if self._text is None:
            raise NotFitted(self.name)
        return 8.0 * (_packed(self._text + _joined(documents)) - self._size)

    def alone(self, documents: Sequence[Symbols]) -> float:
        """Bits of all documents as one file."""
        return 8.0 * _packed(_joined(documents))


def _joined(documents: Sequence[Symbols]) -> bytes:
    return b"".join(bytes(document) for document in documents)


def _deflated(text: bytes, dictionary: bytes) -> int:
    # A negative window size means a bare stream.
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, dictionary)
    return len(packer.compress(text)) + len(packer.flush())


def _packed(text: bytes) -> int:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 26}]
    return len(lzma.compress(text, lzma.FORMAT_RAW, filters=filters))
