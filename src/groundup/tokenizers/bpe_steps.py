"""Byte-pair encoding step by step, for learning how it works (Sennrich et al., 2016).

Each step counts all adjacent pairs of symbols anew, merges the most frequent one everywhere, and writes down what it
did: `learn_steps` returns this trace. `training/byte_bpe.py` learns the same merges without counting all again.

What a step may take away: a symbol that occurs nowhere any more is removed from the vocabulary, so a vocabulary can
grow, stay as large, or shrink with a merge.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from groundup.base.errors import DataError, UsageError

Pair = tuple[str, str]
Word = tuple[str, ...]
END_OF_WORD = "</w>"


@dataclass(frozen=True)
class Step:
    """One merge.

    Attributes:
        pair: the symbols that were merged.
        count: how often the pair occurred, words weighed by their frequency.
        symbol: the new symbol.
        rivals: other pairs that were as frequent: where there are any, the rule for ties decided.
        removed: symbols that occur nowhere any more.
        vocabulary: the symbols after the step, with their frequencies.
        words: the words as symbols after the step, with their frequencies.
    """

    pair: Pair
    count: int
    symbol: str
    rivals: tuple[Pair, ...]
    removed: tuple[str, ...]
    vocabulary: Mapping[str, int]
    words: Mapping[Word, int]

    def __str__(self) -> str:
        removed = f", gone: {' '.join(self.removed)}" if self.removed else ""
        return (
            f"{self.pair[0]} + {self.pair[1]} -> {self.symbol} ({self.count} times{removed}; "
            f"{len(self.vocabulary)} symbols)"
        )


@dataclass(frozen=True)
class Trace:
    """All steps of a training.

    Attributes:
        start: the words as symbols before the first step, with their frequencies.
        steps: the merges, in order.
    """

    start: Mapping[Word, int]
    steps: tuple[Step, ...]

    @property
    def merges(self) -> list[Pair]:
        """The learnt pairs, in order."""
        return [step.pair for step in self.steps]

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """The symbols at the end, with their frequencies; those removed on the way are not in it."""
        return self.steps[-1].vocabulary if self.steps else symbol_counts(self.start)


def words_of(texts: Iterable[str]) -> Counter[str]:
    """How often each word occurs; words are what stands between white space."""
    return Counter(word for text in texts for word in text.split())


def learn_steps(
    words: Mapping[str, int],
    steps: int,
    *,
    end_of_word: Literal["none", "own", "joined"] = "none",
    ties: Literal["first", "ids"] = "first",
    order: Sequence[str] = (),
    min_frequency: int = 1,
) -> Trace:
    """Learn `steps` merges, or fewer where no pair is frequent enough.

    Args:
        words: word -> how often it occurs.
        steps: number of merges.
        end_of_word: "own" puts the symbol `</w>` behind each word, as the paper does; "joined" joins it to the last
            character, as later programs do; so `est</w>` at the end of a word is another symbol than `est` inside.
        ties: which of equally frequent pairs is merged: "first", the one that occurs first in the words, or "ids", the
            one whose symbols are older (those in `order`, then others by code points, then merged ones as learnt), as
            in `training/byte_bpe.py` and the `tokenizers` library.
        order: symbols that count as oldest, for "ids".
        min_frequency: rarer pairs are not merged.

    Raises:
        DataError: there are no words.
        UsageError: a word is empty or occurs less than once.
    """
    _check(words)
    start = {symbols_of(word, end_of_word): count for word, count in words.items()}
    age = {symbol: place for place, symbol in enumerate(dict.fromkeys([*order, *sorted(symbol_counts(start))]))}
    now, taken = start, []
    for _ in range(steps):
        counts = pair_counts(now)
        most = max(counts.values(), default=0)
        if most < max(1, min_frequency):
            break
        best = [pair for pair, count in counts.items() if count == most]
        if ties == "ids":
            best.sort(key=lambda pair: (age[pair[0]], age[pair[1]]))
        step = _step(now, best[0], most, tuple(best[1:]))
        age.setdefault(step.symbol, len(age))
        now = step.words
        taken.append(step)
    return Trace(start, tuple(taken))


def _check(words: Mapping[str, int]) -> None:
    if not words:
        raise DataError("there is no text to learn from: the input is empty")
    wrong = next((word for word, count in words.items() if not word or count < 1), None)
    if wrong is not None:
        raise UsageError(f"the word {wrong!r:.80} is empty or occurs {words[wrong]} times: leave it out")


def symbols_of(word: str, end_of_word: Literal["none", "own", "joined"]) -> Word:
    """A word as the symbols that training begins with."""
    if end_of_word == "own":
        return (*word, END_OF_WORD)
    if end_of_word == "joined":
        return (*word[:-1], word[-1] + END_OF_WORD)
    return tuple(word)


def pair_counts(words: Mapping[Word, int]) -> Counter[Pair]:
    """How often each two symbols stand beside each other, in order of first occurrence."""
    counts: Counter[Pair] = Counter()
    for word, count in words.items():
        for pair in itertools.pairwise(word):
            counts[pair] += count
    return counts


def symbol_counts(words: Mapping[Word, int]) -> Counter[str]:
    """How often each symbol occurs, in order of first occurrence."""
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for symbol in word:
            counts[symbol] += count
    return counts


def _step(words: Mapping[Word, int], pair: Pair, count: int, rivals: tuple[Pair, ...]) -> Step:
    after: Counter[Word] = Counter()
    for word, frequency in words.items():
        after[merge(word, pair)] += frequency
    vocabulary = symbol_counts(after)
    # A merge changes the frequencies of its two parts alone; each may have been used up.
    removed = tuple(symbol for symbol in dict.fromkeys(pair) if symbol not in vocabulary)
    return Step(pair, count, pair[0] + pair[1], rivals, removed, vocabulary, after)


def merge(word: Word, pair: Pair) -> Word:
    """The word with the pair merged wherever it stands, from left to right."""
    merged: list[str] = []
    place = 0
    while place < len(word):
        if word[place : place + 2] == pair:
            merged.append(pair[0] + pair[1])
            place += 2
        else:
            merged.append(word[place])
            place += 1
    return tuple(merged)


def apply_steps(word: Word, merges: Sequence[Pair]) -> list[Word]:
    """How a word is encoded: itself, and what it is after each merge that changes it."""
    states = [word]
    for pair in merges:
        after = merge(states[-1], pair)
        if after != states[-1]:
            states.append(after)
    return states
