"""Words as tokens: the oldest tokenizers, and what is wrong with them."""

from collections.abc import Mapping
from typing import Any

from groundup.base.errors import UsageError


class WordLevelModel:
    """Each word is one token; words outside the vocabulary become the unknown token.

    Args:
        vocab: word -> id.
        unk: the token of unknown words; where the vocabulary lacks it, an unknown word is an error.
    """

    def __init__(self, vocab: Mapping[str, int], *, unk: str = "<unk>"):
        self.vocab = vocab
        self.unk = unk

    def cut(self, word: str) -> list[tuple[int, int]]:
        """The word's id, and its length in characters as the end.

        Raises:
            UsageError: the word is unknown, and so is the unknown token.
        """
        if not word:
            return []
        number = self.vocab.get(word, self.vocab.get(self.unk))
        if number is None:
            raise UsageError(f"the word {word!r:.80} is not in the vocabulary, and neither is {self.unk!r}")
        return [(number, len(word))]

    def to_json(self) -> dict[str, Any]:
        """The `model` of a tokenizer.json."""
        return {"type": "WordLevel", "vocab": dict(self.vocab), "unk_token": self.unk}
