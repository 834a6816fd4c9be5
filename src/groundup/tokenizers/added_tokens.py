"""Tokens that are found in the text as they stand, before the tokenizer's model sees the rest.

Two sorts: special (control) tokens such as <|endoftext|>, found only where the caller allows it, and ordinary added
tokens (runs of spaces in GPT-NeoX, emoji, ...), found always.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from groundup.tokenizers.prefix_tree import PrefixTree


@dataclass(frozen=True)
class AddedToken:
    """A token with a fixed spelling.

    Attributes:
        content: the spelling, as it stands in the text.
        id: its number.
        special: a control token; user text that spells it stays text unless special tokens are allowed.
        normalized: it is looked for in the normalized text (and in its own normalized spelling).
    """

    content: str
    id: int
    special: bool = True
    normalized: bool = False


class AddedTokens:
    """Cuts a text into added tokens (ids) and the rest (text)."""

    def __init__(self, tokens: Iterable[AddedToken], normalize: Callable[[str], str] | None = None):
        self.tokens = tuple(tokens)
        self.normalize = normalize
        # Both orders of search: as written, then normalized; each with special tokens and without.
        self._raw = {flag: _Finder(self._select(False, flag)) for flag in (True, False)}
        self._normalized = {flag: _Finder(self._select(True, flag)) for flag in (True, False)}

    def _select(self, normalized: bool, allow_special: bool) -> dict[str, int]:
        spell = self.normalize if normalized and self.normalize else str
        chosen = (t for t in self.tokens if t.normalized == normalized and (allow_special or not t.special))
        return {spell(token.content): token.id for token in chosen}

    def cut(self, text: str, allow_special: bool) -> Iterator[str | int]:
        """The pieces of `text` in order: ids of added tokens, and normalized text between them (never empty)."""
        for piece in self._raw[allow_special].cut(text):
            if isinstance(piece, int):
                yield piece
            else:
                shown = self.normalize(piece) if self.normalize else piece
                yield from self._normalized[allow_special].cut(shown)

    @cached_property
    def special_finder(self) -> "_Finder":
        """Finds every special token, as it is written."""
        return _Finder({token.content: token.id for token in self.tokens if token.special})


class _Finder:
    """Leftmost, then longest match of any of the spellings."""

    def __init__(self, ids: dict[str, int]):
        self.ids = {content: number for content, number in ids.items() if content}
        self._tree = PrefixTree(self.ids)

    def cut(self, text: str) -> Iterator[str | int]:
        """Ids of what was found, and the text between."""
        end = 0
        for start, stop in self._tree.find(text):
            if start > end:
                yield text[end:start]
            yield self.ids[text[start:stop]]
            end = stop
        if end < len(text):
            yield text[end:]
