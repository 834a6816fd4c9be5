"""Where each character of a normalized text comes from, so that tokens have offsets in the text as it was written."""

from collections.abc import Iterable, Sequence
from typing import Protocol

Span = tuple[int, int]
Traced = tuple[str, Sequence[int]]  # a new text, and for each of its characters the place in the old one; -1: nowhere


class Transform(Protocol):
    """A change of a text that tells where the characters of the new text come from."""

    def apply(self, text: str, first: bool) -> str: ...

    def trace(self, text: str, first: bool) -> Traced: ...


class Aligned:
    """A piece of a text after changes.

    Attributes:
        text: the piece as it is now.
        origin: for each character the place of the one it stems from, in the text as written; `-1 - p` for a
            character that was put in front of place p and stems from none.
    """

    __slots__ = ("origin", "text")

    def __init__(self, text: str, origin: Sequence[int] | None = None):
        self.text = text
        self.origin = range(len(text)) if origin is None else origin

    def slice(self, start: int, end: int) -> "Aligned":
        """The characters from `start` to `end`."""
        return Aligned(self.text[start:end], self.origin[start:end])

    def through(self, transform: Transform) -> "Aligned":
        """The piece after a transform."""
        text, sources = transform.trace(self.text, self.begin == 0)
        if isinstance(sources, range) and sources == range(len(self.origin)):
            return Aligned(text, self.origin)
        origin, nowhere = self.origin, -1 - self.begin
        return Aligned(text, [origin[source] if source >= 0 else nowhere for source in sources])

    @property
    def begin(self) -> int:
        """Where the piece begins in the text as written."""
        return self.span(0, 1)[0] if self.text else 0

    def span(self, start: int, end: int) -> Span:
        """Where the characters from `start` to `end` (not empty) stand in the text as written."""
        first, last = self.origin[start], self.origin[end - 1]
        return (first if first >= 0 else -1 - first), (last + 1 if last >= 0 else -1 - last)


def follow(changes: Iterable[int], size: int, skipped: int = 0) -> list[int]:
    """Sources of new characters from changes of length.

    Each new character carries a number: 0, it takes the place of one old character; -n, and the n after it are gone;
    above 0, it was put in after the one before. This is how the `tokenizers` library counts: by position, so after a
    reordering a character may be said to stem from its neighbour.

    Args:
        changes: the number of each new character.
        size: length of the old text.
        skipped: old characters that are gone before the first new one.
    """
    place, sources = skipped, []
    for change in changes:
        if change > 0:
            sources.append(min(place, size) - 1)
        else:
            sources.append(min(place, size - 1))
            place += 1 - change
    return sources
