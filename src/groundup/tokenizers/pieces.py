"""Ids of a text that is put together from pieces: control tokens, and texts that are tokenized apart.

Some kinds (SentencePiece and its relatives) put a space before a text's first word. In the middle of a conversation none
must appear: `PieceEncoder` asks the tokenizer in such a way that a piece is encoded as what goes on, or as the tokenizer
itself encodes what follows a control token.
"""

import weakref
from collections.abc import Callable

from groundup.base.errors import UsageError
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
