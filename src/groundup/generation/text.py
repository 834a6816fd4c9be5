"""TextStream: tokens in, text out, piece by piece, with nothing shown that may have to be taken back."""

from collections.abc import Sequence

from groundup.tokenizers.streaming import StreamDecoder
from groundup.tokenizers.tokenizer import Tokenizer


class TextStream:
    """The text of a growing list of tokens.

    Held back are the bytes of an unfinished character and a tail that may become a stop text. Special tokens give no
    text; bytes that are not UTF-8 give U+FFFD.

    Attributes:
        text: all text that is certain so far.
        stopped: a stop text has come; `text` ends before it.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()):
        self.tokenizer, self.stop = tokenizer, [text for text in stop if text]
        self.text, self.stopped = "", False
        self._decoder = StreamDecoder(tokenizer, skip_special=True)
        self._held = ""
        self._taken = 0

    def push(self, token: int) -> bool:
        """Add a token; whether a stop text has come."""
        if token < self.tokenizer.vocab_size:  # models may have spare ids at the end
            self._add(self._decoder.push(token))
        return self.stopped

    def finish(self) -> None:
        """No more tokens: what was held back is text."""
        if not self.stopped:
            self._add(self._decoder.finish())
        if not self.stopped:
            self.text, self._held = self.text + self._held, ""

    def take(self) -> str:
        """The text that became certain since the last call."""
        piece, self._taken = self.text[self._taken :], len(self.text)
        return piece

    def _add(self, new: str) -> None:
        if not self.stop:
            self.text += new
            return
        held = self._held + new
        found = [place for place in (held.find(stop) for stop in self.stop) if place >= 0]
        if found:
            self.stopped = True
            self.text, self._held = self.text + held[: min(found)], ""
            return
        keep = overlap(held, self.stop)
        self.text, self._held = self.text + held[: len(held) - keep], held[len(held) - keep :]


def overlap(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of `text` that begins one of `stops`."""
    longest = min(len(text), max(map(len, stops)) - 1)
    ends = (size for size in range(longest, 0, -1) if any(stop.startswith(text[-size:]) for stop in stops))
    return next(ends, 0)
