"""Decoding ids one by one, while they are generated."""

import codecs

from groundup.tokenizers.tokenizer import Tokenizer


class StreamDecoder:
    """Turns ids into text as they come; the pieces joined are `tokenizer.decode` of all ids.

    A character's bytes may be spread over several tokens: an unfinished one is held back until it is whole, or shown
    as U+FFFD when it turns out never to be.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = False):
        self.tokenizer = tokenizer
        self._hidden = frozenset(tokenizer.special_tokens.values()) if skip_special else frozenset()
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, id: int) -> str:
        """The text that has become certain with this id; often empty inside a character of several bytes."""
        return "" if id in self._hidden else self._decoder.decode(self.tokenizer.token_bytes(id))

    def finish(self) -> str:
        """What was held back, as U+FFFD; the decoder is as new afterwards."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest
