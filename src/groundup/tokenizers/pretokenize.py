r"""Cutting a text into pieces that no merge may cross.

Sources: GPT-2 (Radford et al., 2019), cl100k of GPT-4 (OpenAI's tiktoken, 2023), Llama 3 (Grattafiori et al., 2024).
What differs:

- gpt2: contractions in lower case; letters, numbers and signs each with at most one space in front.
- gpt4: contractions in any case; at most three digits a piece; one sign may lead a word; line ends stay together.
- llama3: gpt4's rules, written without possessive quantifiers, as its tokenizer.json has them.
- qwen2: the same, but every digit is a piece (Qwen team, 2024).

The patterns are facts about those tokenizers: another pattern means other ids. `\s` is Unicode's White_Space, which the
`regex` module follows and Python's `re` does not (it adds U+001C to U+001F).
"""

import itertools
import re
from collections.abc import Iterator
from functools import lru_cache

import regex

from groundup.base.errors import UsageError, did_you_mean

PATTERNS: dict[str, str] = {
    "gpt2": r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""",
    "gpt4": (
        r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"""
        r"""|\s*[\r\n]|\s+(?!\S)|\s+"""
    ),
    "llama3": (
        r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"""
        r"""|\s*[\r\n]+|\s+(?!\S)|\s+"""
    ),
    "qwen2": (
        r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"""
        r"""|\s*[\r\n]+|\s+(?!\S)|\s+"""
    ),
}

# Pattern -> how the compiled cutter is told: 0 for GPT-2's rules, else the most digits of a piece.
RULES: dict[str, int] = {
    PATTERNS["gpt2"]: 0,
    PATTERNS["gpt4"]: 3,
    PATTERNS["llama3"]: 3,
    PATTERNS["qwen2"]: 1,
}

CHUNK = 2**16
BEFORE_SPACE = regex.compile(r"(?<=\S) ")


class PreTokenizer:
    """Cuts text by a pattern: each match is a piece, and so is what lies between matches.

    Args:
        pattern: a name in `PATTERNS`, or a regular expression of the `regex` module.

    Raises:
        UsageError: the pattern is neither a known name nor a valid expression.
    """

    def __init__(self, pattern: str):
        self.pattern = PATTERNS.get(pattern, pattern)
        self.named = self.pattern in PATTERNS.values()
        if not self.named and pattern.isidentifier() and pattern.isascii():
            raise UsageError(
                f"`{pattern}` is not a pre-tokenizer pattern.{did_you_mean(pattern, PATTERNS)} "
                f"Known: {', '.join(PATTERNS)}; or give a regular expression"
            )
        self._regex = _compile(self.pattern)
        self._ascii = re.compile(_for_ascii(self.pattern), re.ASCII) if self.named else None

    def split(self, text: str) -> list[str]:
        """The pieces of `text`, in order; joined they are `text`."""
        if self._ascii is None:
            return list(self._split_any(text))
        if len(text) <= CHUNK:
            return self._find(text)
        return list(itertools.chain.from_iterable(map(self._find, chunks(text))))

    def _find(self, text: str) -> list[str]:
        # The standard library's `re` is about twice as fast, and on ASCII text its classes mean the same.
        if self._ascii is not None and text.isascii():
            return self._ascii.findall(text)
        return self._regex.findall(text)

    def _split_any(self, text: str) -> Iterator[str]:
        end = 0
        for match in self._regex.finditer(text):
            start, stop = match.span()
            if start > end:
                yield text[end:start]
            if stop > start:
                yield text[start:stop]
            end = stop
        if end < len(text):
            yield text[end:]


def chunks(text: str, size: int = CHUNK, border: "regex.Pattern[str]" = BEFORE_SPACE) -> Iterator[str]:
    """`text` in parts of about `size` characters, cut before a place that matches `border`.

    No piece of a named pattern crosses the space that follows a non-space, and no lookahead sees across it, so the
    pieces stay the same.
    """
    start = 0
    while start + size < len(text):
        cut = border.search(text, start + size)
        if cut is None:
            break
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]


@lru_cache(maxsize=64)
def _compile(pattern: str) -> "regex.Pattern[str]":
    try:
        return regex.compile(pattern)
    except regex.error as error:
        raise UsageError(f"the pre-tokenizer pattern {pattern!r} is not a regular expression: {error}") from None


def _for_ascii(pattern: str) -> str:
    r"""A named pattern for ASCII text in the syntax of `re`: outside [] the classes get brackets of their own."""
    text = pattern.replace(r"[^\r\n\p{L}\p{N}]", r"[^\r\nA-Za-z0-9]").replace(r"[^\s\p{L}\p{N}]", r"[^\sA-Za-z0-9]")
    return text.replace(r"\p{L}", "[A-Za-z]").replace(r"\p{N}", "[0-9]")
