"""Decoding ids one by one, while they are generated."""

import codecs

from groundup.tokenizers.tokenizer import Tokenizer

UNFINISHED = "\ufffd"
HELD_BACK = 1024  # ids; what has not become text after so many is shown as it is


class StreamDecoder:
    """Turns ids into text as they come; the pieces joined are `tokenizer.decode` of all ids.

    A character's bytes may be spread over several tokens: an unfinished one is held back until it is whole, or shown
    as U+FFFD when it turns out never to be.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = False):
        self.tokenizer = tokenizer
        self._hidden = frozenset(tokenizer.special_tokens.values()) if skip_special else frozenset()
        self._way = _Bytes(tokenizer) if getattr(tokenizer, "bytewise", True) else _Window(tokenizer)

    def push(self, id: int) -> str:
        """The text that has become certain with this id; often empty inside a character of several bytes."""
        return "" if id in self._hidden else self._way.push(id)

    def finish(self) -> str:
        """What was held back, as U+FFFD; the decoder is as new afterwards."""
        return self._way.finish()


class _Bytes:
    """Tokens are bytes, whatever stands beside them."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, id: int) -> str:
        return self._decoder.decode(self._tokenizer.token_bytes(id))

    def finish(self) -> str:
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


class _Window:
    """What a token looks like depends on its neighbours: the last ids are decoded with and without the new ones.

    The window is `shown` ids, whose text is out, and `waiting` ones. A text that ends unfinished waits; so does the
    last id, whose look may change with the next (the sign that ends words is no space at the end of all).
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._in_runs: frozenset[int] = getattr(tokenizer, "ids_in_runs", frozenset())
        self._start()

    def _start(self) -> None:
        self._shown: list[int] = []
        self._waiting: list[int] = []
        self._text = ""  # of the shown ids, as far as it is out

    def push(self, id: int) -> str:
        self._waiting.append(id)
        if id in self._in_runs and len(self._waiting) < HELD_BACK:
            return ""  # what a run of bytes stands for is certain when it has ended
        together = self._tokenizer.decode([*self._shown, *self._waiting])
        before = self._tokenizer.decode([*self._shown, *self._waiting[:-1]]) if len(self._waiting) > 1 else self._text
        # Certain is what the text has in common with and without the new id.
        certain = _common(before, together)
        if len(self._waiting) < HELD_BACK:
            certain = certain.rstrip(UNFINISHED)
        new = certain[len(self._text) :] if certain.startswith(self._text) else ""
        self._text += new
        if new and len(self._waiting) > 1:
            self._move(together)
        return new

    def _move(self, together: str) -> None:
        """Forget ids at the start of the window, as long as what is left still decodes to an end of the text."""
        self._shown += self._waiting[:-1]
        self._waiting = self._waiting[-1:]
        fewer = self._shown[-4:]
        shorter = self._tokenizer.decode([*fewer, *self._waiting])
        gone = len(together) - len(shorter)
        if len(fewer) < len(self._shown) and shorter and together.endswith(shorter) and gone < len(self._text):
            self._shown, self._text = fewer, self._text[gone:]

    def finish(self) -> str:
        together = self._tokenizer.decode([*self._shown, *self._waiting])
        rest = together[len(self._text) :]
        self._start()
        return rest


def _common(first: str, second: str) -> str:
    """The longest beginning that both have."""
    size = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        size += 1
    return first[:size]
