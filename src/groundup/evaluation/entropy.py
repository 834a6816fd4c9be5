"""The entropy of a language: how many bits a letter of it holds, estimated in four ways.

C. E. Shannon, "Prediction and entropy of printed English", Bell System Technical Journal 30, 1951:

    F_N = - sum over blocks b of N - 1 letters and letters j of p(b, j) log2 p(j | b)      F_0 = log2 of the alphabet

F_N falls towards the entropy H as N grows. Counting gives the first few; a guesser who knows the language gives bounds
for a long past; and any model gives an upper bound, its cross-entropy, because H(p, q) >= H(p).
"""

import math
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from groundup.base.errors import DataError, UsageError

if TYPE_CHECKING:
    from groundup.tokenizers.tokenizer import Tokenizer

LETTERS = string.ascii_lowercase
ALPHABETS = {26: LETTERS, 27: LETTERS + " "}
"""Shannon's two alphabets: letters alone, and with the space between words."""


def reduced(text: str, letters: int = 27) -> str:
    """A text in one of Shannon's alphabets: lower case, anything else is a space, one between words; 26 has none."""
    if letters not in ALPHABETS:
        raise UsageError(f"the alphabet has 26 letters, or 27 with the space, not {letters}")
    kept = "".join(c if c in LETTERS else " " for c in text.lower())
    return ("" if letters == 26 else " ").join(kept.split())


def entropy(probabilities: Sequence[float] | np.ndarray) -> float:
    """-sum p log2 p, in bits; zeros count nothing."""
    p = np.asarray(probabilities, dtype=np.float64)
    p = p[p > 0]
    return max(0.0, float(-(p * np.log2(p)).sum()))


def block_entropies(text: str | Sequence[Any], longest: int, *, corrected: bool = False) -> list[float]:
    """F_0 to F_longest of a text, in bits a symbol; F_0 is that of the symbols that occur.

    F_N = H(blocks of N) - H(blocks of N - 1). Where blocks are as many as the text allows, counting knows nothing and
    F_N is far too low: look at texts much longer than the alphabet to the power of N.

    Args:
        text: symbols, or a string.
        longest: N.
        corrected: add (different blocks - 1) / (2 ln 2 blocks) to each H, which a finite text misses on average
            (Miller 1955; Madow).
    """
    if len(text) < longest or not len(text):
        raise DataError(f"blocks of {longest} symbols need a text of as many; this one has {len(text)}")
    _, symbols = np.unique(np.array(list(text)), return_inverse=True)
    alphabet = int(symbols.max()) + 1
    found, before, blocks = [math.log2(alphabet)], 0.0, np.zeros(len(symbols), np.int64)
    for n in range(1, longest + 1):
        # the number of the block that begins here, from that of the block one shorter and the symbol after it
        keys = blocks[: len(symbols) - n + 1] * alphabet + symbols[n - 1 :]
        _, blocks, counts = np.unique(keys, return_inverse=True, return_counts=True)
        h = entropy(counts / counts.sum())
        if corrected:
            h += (len(counts) - 1) / (2 * math.log(2) * counts.sum())
        found.append(h - before)
        before = h
    return found


def word_entropy(words: Sequence[str]) -> float:
    """Bits of a word by frequency alone; over its mean length it bounds the entropy of a letter."""
    counts = np.array(list(Counter(words).values()), dtype=np.float64)
    return entropy(counts / counts.sum())


def zipf_entropy(scale: float = 0.1) -> tuple[float, int]:
    """Bits of a word whose n-th most frequent one has probability scale / n, up to where these sum to 1; and how many.

    Shannon (1951) prints 8,727 words and 11.82 bits, with 4.5 letters 2.62 bits a letter. The sums themselves give
    12,366 words and 9.72 bits: 2.16 bits a letter.
    """
    total, words, bits = 0.0, 0, 0.0
    while total + scale / (words + 1) <= 1:
        words += 1
        p = scale / words
        total, bits = total + p, bits - p * math.log2(p)
    return bits, words


def guess_bounds(shares: Sequence[float]) -> tuple[float, float]:
    """Bounds of F_N in bits, from how often the i-th guess was right (q_i, i from 1) when N - 1 letters are known.

    lower  sum over i of i (q_i - q_{i+1}) log2 i        upper  - sum over i of q_i log2 q_i       (equation 17)

    They hold for a guesser who always names the likeliest letter that is left. A worse one makes the upper bound worse,
    which is then still a bound of what this guesser knows.
    """
    q = np.asarray(shares, dtype=np.float64)
    if not q.size or abs(q.sum() - 1) > 0.01:
        raise UsageError(f"shares of guesses sum to 1, these to {q.sum():.3f}")
    i = np.arange(1, len(q) + 1)
    following = np.append(q[1:], 0.0)
    return float((i * (q - following) * np.log2(i)).sum()), entropy(q)


def shares_of(guesses: Sequence[int]) -> list[float]:
    """How often the 1st, 2nd, ... guess was right, from the number of guesses that each letter took."""
    if not guesses or min(guesses) < 1:
        raise UsageError("there is no entropy of no guesses: each letter takes at least one")
    counts = np.bincount(guesses)[1:]
    return (counts / counts.sum()).tolist()


def bits_per_character(model: Any, tokenizer: "Tokenizer", texts: Sequence[str], **settings: Any) -> float:
    """Cross-entropy of texts under a language model, in bits a character; `settings` as for `perplexity.measure`."""
    from groundup.evaluation.perplexity import measure

    return -measure(model, tokenizer, texts, **settings).logprob / math.log(2) / sum(map(len, texts))


def cross_entropy(text: str, predict: Callable[[str], dict[str, float]]) -> float:
    """Bits a character of a text when `predict(text so far)` gives the next character's probabilities."""
    if not text:
        raise DataError("the cross-entropy of an empty text is not defined")
    p = [predict(text[:i]).get(character, 0.0) for i, character in enumerate(text)]
    return -sum(math.log2(x) if x > 0 else -math.inf for x in p) / len(text)
