"""Ids of a text that is put together from pieces: control tokens, and texts that are tokenized apart.

Some kinds (SentencePiece and its relatives) put a space before a text's first word. In the middle of a conversation
none must appear: `PieceEncoder` asks the tokenizer in such a way that a piece is encoded as what goes on, or as the
tokenizer itself encodes what follows a control token.
"""

import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from groundup.base.errors import UsageError
from groundup.tokenizers.chat.guarding import Spellings
from groundup.tokenizers.chat.template import Rendered
from groundup.tokenizers.tokenizer import Tokenizer

# A text that stands before a piece while it is encoded, and whose ids are then taken off again.
ANCHORS = ("\n", "\ufdef")

Encode = Callable[[str], list[int]]


class PieceEncoder:
    """How a tokenizer encodes texts by their place.

    Attributes:
        start: at the beginning of everything.
        after_control: after a control token.
        go_on: directly after another text.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = weakref.proxy(tokenizer)
        self.start: Encode = self._encode
        self._anchors = [anchor for anchor in ANCHORS if self._ids(anchor)]
        adds_space = self._adds_space()
        self.go_on: Encode = self._go_on if adds_space else self._encode
        self.after_control: Encode = self.go_on if adds_space and not self._adds_space_after_control() else self._encode

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)

    def _ids(self, text: str, allowed_special: bool = False) -> list[int]:
        try:
            return self._tokenizer.encode(text, allowed_special=allowed_special)
        except UsageError:  # not in the vocabulary
            return []

    def _adds_space(self) -> bool:
        """Whether a first word is encoded otherwise than one that goes on."""
        alone, going_on = self._ids("a"), self._go_on("a") if self._ids("a") else []
        return bool(going_on) and alone != going_on and self._tokenizer.decode(going_on).strip() == "a"

    def _adds_space_after_control(self) -> bool:
        control = next(iter(self._tokenizer.special_tokens), None)
        return control is not None and self._ids(control + "a", allowed_special=True)[1:] == self._ids("a")

    def _go_on(self, text: str) -> list[int]:
        for anchor in self._anchors:
            before, both = self._ids(anchor), self._ids(anchor + text)
            if both[: len(before)] == before and len(both) > len(before):
                return both[len(before) :]
        return self._encode(text)


_encoders: "weakref.WeakKeyDictionary[Tokenizer, PieceEncoder]" = weakref.WeakKeyDictionary()


def encoder_of(tokenizer: Tokenizer) -> PieceEncoder:
    """The tokenizer's piece encoder; made once."""
    found = _encoders.get(tokenizer)
    if found is None:
        found = _encoders[tokenizer] = PieceEncoder(tokenizer)
    return found


def to_ids(
    tokenizer: Tokenizer,
    rendered: Rendered,
    speakers: list[int],
    controls: Spellings,
    written: Spellings,
    guard: str,
) -> tuple[list[int], list[int]]:
    """Ids, and for each the place of the message that says it; -1 outside of blocks."""
    encoder = encoder_of(tokenizer)
    stripping = {token.content: token for token in tokenizer.added.tokens if _strips(token)}
    ids: list[int] = []
    said: list[int] = []
    encode, before = encoder.start, None
    for text, speaker, begins in _sections(rendered, speakers):
        pieces = list(controls.cut(text))
        for place, (piece, is_control) in enumerate(pieces):
            if is_control:
                found = [tokenizer.special_tokens[piece]]
            else:
                after = pieces[place + 1][0] if place + 1 < len(pieces) else None
                piece = _stripped(piece, None if begins and not place else before, after, stripping)
                found = [number for part in _parts(piece, written, guard) for number in encode(part)] if piece else []
            ids += found
            said += [speaker] * len(found)
            if piece:
                encode, before = (encoder.after_control, piece) if is_control else (encoder.go_on, None)
    return ids, said


def _strips(token: Any) -> bool:
    return getattr(token, "lstrip", False) or getattr(token, "rstrip", False)


def _stripped(text: str, before: str | None, after: str | None, stripping: Mapping[str, Any]) -> str:
    """A text without the spaces that the control tokens around it take to themselves."""
    if before is not None and before in stripping and getattr(stripping[before], "rstrip", False):
        text = text.lstrip()
    if after is not None and after in stripping and getattr(stripping[after], "lstrip", False):
        text = text.rstrip()
    return text


def _parts(text: str, written: Spellings, guard: str) -> list[str]:
    """A text without guards; cut at them where it would else become a token that the template writes."""
    plain = text.replace(guard, "")
    if guard in text and written.whole is not None and written.whole.search(plain):
        return [part for part in text.split(guard) if part]
    return [plain] if plain else []


def _sections(rendered: Rendered, speakers: list[int]) -> Iterator[tuple[str, int, bool]]:
    """The text outside and inside of blocks: (text, speaker, whether a block begins here)."""
    end = 0
    for block, speaker in zip(rendered.blocks or (), speakers, strict=True):
        yield rendered.text[end : block.start], -1, False
        yield rendered.text[block.start : block.end], speaker, True
        end = block.end
    yield rendered.text[end:], -1, False


def one_bos(bos: int | None, ids: list[int], said: list[int]) -> tuple[list[int], list[int]]:
    """Exactly one BOS in front, where there is such a token."""
    if bos is None:
        return ids, said
    extra = next((i for i, number in enumerate(ids) if number != bos), len(ids))
    return [bos, *ids[extra:]], [-1, *said[extra:]]
