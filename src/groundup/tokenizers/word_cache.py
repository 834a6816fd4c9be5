"""What became of each word: text repeats itself, so this is where the speed of the readable forms is."""

from typing import TypeVar

Value = TypeVar("Value")

WORDS = 2**18
LONGEST = 64  # characters; longer words seldom come again


class WordCache(dict[str, Value]):
    """Word -> what was worked out for it. It is emptied when it is full, and long words are not kept.

    found = cache.get(word)
    if found is None:
        found = cache.keep(word, work_out(word))
    """

    def keep(self, word: str, value: Value) -> Value:
        """Remember `value`, and return it."""
        if len(word) <= LONGEST:
            if len(self) >= WORDS:
                self.clear()
            self[word] = value
        return value
