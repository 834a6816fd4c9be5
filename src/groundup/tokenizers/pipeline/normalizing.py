"""What a normalizer is.

It can be asked in two ways: `apply` gives the new text, quickly; `trace` also tells for each new character which old
one it stems from, for offsets. Both give the same text.
"""

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

from groundup.tokenizers.pipeline.alignment import Traced
from groundup.tokenizers.pipeline.parts import Component


class Normalizer(Component):
    """A change of the whole text."""

    def apply(self, text: str, first: bool = True) -> str:
        """The new text. `first` has no meaning here: it tells pre-tokenizers whether a piece begins the text."""
        return self.trace(text, first)[0]

    def trace(self, text: str, first: bool = True) -> Traced:
        """The new text, and for each of its characters the place of the old one it stems from (-1: none)."""
        raise NotImplementedError


class _Spellings(dict[int, str]):
    """What becomes of each character, worked out at its first sight; a table for `str.translate`."""

    def __init__(self, spell: Callable[[str], str]):
        super().__init__()
        self._spell = spell

    def __missing__(self, code: int) -> str:
        self[code] = spelled = self._spell(chr(code))
        return spelled


class PerCharacter(Normalizer):
    """Each character becomes other characters, or none, whatever stands beside it."""

    def spell(self, character: str) -> str:
        """What `character` becomes."""
        raise NotImplementedError

    @cached_property
    def _table(self) -> _Spellings:
        return _Spellings(self.spell)

    def apply(self, text: str, first: bool = True) -> str:
        return text.translate(self._table)

    def trace(self, text: str, first: bool = True) -> Traced:
        table = self._table
        spelled = [table[ord(character)] for character in text]
        return "".join(spelled), [place for place, new in enumerate(spelled) for _ in new]


def apply_all(steps: Iterable[Normalizer], text: str) -> str:
    """The text after all steps."""
    for step in steps:
        text = step.apply(text)
    return text


def trace_all(steps: Iterable[Normalizer], text: str) -> Traced:
    """`apply_all`, with the places in the text before the first step."""
    sources: Any = range(len(text))
    for step in steps:
        text, places = step.trace(text)
        sources = [sources[place] if place >= 0 else -1 for place in places]
    return text, sources
