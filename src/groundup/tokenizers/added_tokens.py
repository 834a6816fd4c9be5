"""Tokens that are found in the text as they stand, before the tokenizer's model sees the rest.

Two sorts: special (control) tokens such as <|endoftext|>, found only where the caller allows it, and ordinary added
tokens (runs of spaces in GPT-NeoX, emoji, ...), found always.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from groundup.tokenizers.pipeline.alignment import Aligned, Transform
from groundup.tokenizers.pipeline.unicode_classes import WHITE_SPACE, WORD
from groundup.tokenizers.prefix_tree import PrefixTree


@dataclass(frozen=True)
class AddedToken:
    """A token with a fixed spelling.

    Attributes:
        content: the spelling, as it stands in the text.
        id: its number.
        special: a control token; user text that spells it stays text unless special tokens are allowed.
        normalized: it is looked for in the normalized text (and in its own normalized spelling).
        lstrip: white space before it belongs to it.
        rstrip: white space after it belongs to it.
        single_word: it is found only where no letter, number or mark stands right beside it.
    """

    content: str
    id: int
    special: bool = True
    normalized: bool = False
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


class AddedTokens:
    """Cuts a text into added tokens (ids) and the rest (text)."""

    def __init__(self, tokens: Iterable[AddedToken], normalize: Callable[[str], str] | None = None):
        self.tokens = tuple(tokens)
        self.normalize = normalize
        # Both orders of search: as written, then normalized.
        self._raw = _Finder({token.content: token for token in self.tokens if not token.normalized})
        self._normalized = _Finder(
            {normalize(t.content) if normalize else t.content: t for t in self.tokens if t.normalized}
        )

    def cut(self, text: str, allow_special: bool) -> Iterator[str | int]:
        """The pieces of `text` in order: ids of added tokens, and normalized text between them (never empty)."""
        for piece in self._raw.cut(text, allow_special):
            if isinstance(piece, int):
                yield piece
            else:
                shown = self.normalize(piece) if self.normalize else piece
                yield from self._normalized.cut(shown, allow_special)

    def cut_aligned(
        self, text: Aligned, allow_special: bool, normalize: Transform | None
    ) -> Iterator[tuple[Aligned, int | None]]:
        """As `cut`: pieces that know where they come from, each with its id, or None for text."""
        for start, end, number in self._raw.spans(text.text, allow_special):
            piece = text.slice(start, end)
            if number is not None:
                yield piece, number
                continue
            piece = piece.through(normalize) if normalize else piece
            for first, last, found in self._normalized.spans(piece.text, allow_special):
                yield piece.slice(first, last), found

    @cached_property
    def special_finder(self) -> "_Finder":
        """Finds every special token, as it is written."""
        return _Finder({token.content: token for token in self.tokens if token.special})


class _Finder:
    """Leftmost, then longest match of any of the spellings.

    A match that is not wanted (a special token that is not allowed, a part of a word) is passed over as a whole: no
    shorter token is looked for inside of it, as in the `tokenizers` library.
    """

    def __init__(self, tokens: Mapping[str, AddedToken]):
        self.tokens = {spelling: token for spelling, token in tokens.items() if spelling}
        self._tree = PrefixTree(self.tokens)
        self._only_special = all(token.special for token in self.tokens.values())

    def cut(self, text: str, allow_special: bool = True) -> Iterator[str | int]:
        """Ids of what was found, and the text between."""
        for start, end, number in self.spans(text, allow_special):
            yield text[start:end] if number is None else number

    def spans(self, text: str, allow_special: bool) -> Iterator[tuple[int, int, int | None]]:
        """(start, end, id) of what was found, and of the text between, with None for an id."""
        done = 0
        for start, end in self._tree.find(text) if allow_special or not self._only_special else ():
            token = self.tokens[text[start:end]]
            if (token.special and not allow_special) or not _stands_alone(token, text, start, end):
                continue
            start, end = _with_spaces(token, text, start, end, done)
            if start > done:
                yield done, start, None
            yield start, end, token.id
            done = end
        if done < len(text):
            yield done, len(text), None


def _stands_alone(token: AddedToken, text: str, start: int, end: int) -> bool:
    if not token.single_word:
        return True
    return not (start and WORD.match(text, start - 1)) and not WORD.match(text, end)


def _with_spaces(token: AddedToken, text: str, start: int, end: int, done: int) -> tuple[int, int]:
    """The match with the white space that belongs to it; not what an earlier token has taken."""
    if token.lstrip:
        while start > done and text[start - 1] in WHITE_SPACE:
            start -= 1
    if token.rstrip:
        while end < len(text) and text[end] in WHITE_SPACE:
            end += 1
    return max(start, done) if token.lstrip else start, end
