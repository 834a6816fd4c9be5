"""A channel that garbles words by single edits, each kind of edit with its own confusion matrix.

M. D. Kernighan, K. W. Church, W. A. Gale, "A spelling correction program based on a noisy channel model", 1990. A word
is garbled at most once: a letter is left out, put in, replaced by another, or changes places with the next one. How
often depends on the letters there:

    delete  (x, y)   y left out after x          insert   (x, y)   y put in after x
    replace (x, y)   y typed for x               exchange (x, y)   yx typed for xy

    P(typed | word) = 1 - rate                                              if typed is the word
                      rate * sum of the weights of edits that give typed / sum of the weights of all edits of the word
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from groundup.base.errors import UsageError

LETTERS = "abcdefghijklmnopqrstuvwxyz'"
BEGIN = "#"
ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


class Edit(NamedTuple):
    """What happened: a kind and the two letters that it depends on; x is # at the begin of a word."""

    kind: str
    x: str
    y: str


def edits(word: str, letters: str = LETTERS) -> Iterator[tuple[Edit, str]]:
    """Every single edit of a word and what it gives; the same result may come by several edits."""
    for place in range(len(word) + 1):
        before, begin, rest = word[place - 1] if place else BEGIN, word[:place], word[place:]
        for y in letters:
            yield Edit("insert", before, y), begin + y + rest
        if not rest:
            continue
        x = rest[0]
        yield Edit("delete", before, x), begin + rest[1:]
        for y in letters:
            if y != x:
                yield Edit("replace", x, y), begin + y + rest[1:]
        if len(rest) > 1 and rest[1] != x:
            yield Edit("exchange", x, rest[1]), begin + rest[1] + x + rest[2:]


class EditChannel:
    """P(typed | word).

    Args:
        rate: the share of words that are garbled.
        weights: of edits; those that are not there have `otherwise`.
        otherwise: the weight of all other edits.
        letters: what may be typed.
    """

    def __init__(
        self, rate: float, weights: Mapping[Edit, float] | None = None, otherwise: float = 1.0, letters: str = LETTERS
    ):
        if not 0 < rate < 1 or otherwise < 0:
            raise UsageError(f"a channel garbles a share of the words above 0 and below 1, not {rate}")
        self.rate, self.weights, self.otherwise, self.letters = rate, dict(weights or {}), otherwise, letters
        self._garbled = lru_cache(maxsize=100_000)(self._all)

    def weight(self, edit: Edit) -> float:
        """How likely an edit is among those that a word allows, up to a factor."""
        return self.weights.get(edit, self.otherwise)

    def outcomes(self, word: str) -> dict[str, float]:
        """What a word becomes when it is garbled: typed -> probability; they sum to 1. Empty where nothing can be."""
        return self._garbled(word)

    def _all(self, word: str) -> dict[str, float]:
        found: Counter[str] = Counter()
        for edit, typed in edits(word, self.letters):
            if typed != word:
                found[typed] += self.weight(edit)  # type: ignore[assignment]
        total = sum(found.values())
        return {typed: weight / total for typed, weight in found.items()} if total else {}

    def probability(self, typed: str, word: str) -> float:
        """P(typed | word); 0 for what no single edit gives."""
        if typed == word:
            return 1 - self.rate
        return self.rate * self.outcomes(word).get(typed, 0.0)

    def sources(self, typed: str) -> set[str]:
        """All words that the channel may turn into `typed`, by an edit: the edits themselves undone."""
        return {word for _, word in edits(typed, self.letters) if word and word != typed}


def keyboard_channel(rate: float = 0.1) -> EditChannel:
    """A typist on a QWERTY keyboard: neighbouring keys are hit instead or as well, letters are doubled, exchanged, and
    left out; anything else is rare.
    """
    near: dict[str, set[str]] = {letter: set() for letter in LETTERS}
    for r, row in enumerate(ROWS):
        for c, letter in enumerate(row):
            around = [(r, c - 1), (r, c + 1), (r - 1, c), (r - 1, c + 1), (r + 1, c - 1), (r + 1, c)]
            near[letter] |= {ROWS[a][b] for a, b in around if 0 <= a < 3 and 0 <= b < len(ROWS[a])}
    weights: dict[Edit, float] = {}
    for x in LETTERS:
        for y in LETTERS:
            weights[Edit("exchange", x, y)] = 20.0
            weights[Edit("delete", x, y)] = 20.0
            weights[Edit("replace", x, y)] = 10.0 if y in near[x] else 0.1
            weights[Edit("insert", x, y)] = 20.0 if x == y else 3.0 if y in near[x] else 0.1
    # the first letter is rarely wrong
    for y in LETTERS:
        weights[Edit("insert", BEGIN, y)], weights[Edit("delete", BEGIN, y)] = 0.1, 1.0
    return EditChannel(rate, weights, otherwise=0.1)


def corrupted(words: Sequence[str], channel: EditChannel, seed: int) -> list[str]:
    """The words as they come out of the channel."""
    draw, found = random.Random(seed), []
    for word in words:
        outcomes = channel.outcomes(word) if draw.random() < channel.rate else {}
        found.append(draw.choices([*outcomes], [*outcomes.values()])[0] if outcomes else word)
    return found


def learn_channel(
    pairs: Iterable[tuple[str, str]], *, rounds: int = 4, prior: float = 0.1, letters: str = LETTERS
) -> EditChannel:
    """The channel of (typed, word) pairs, right ones among them: confusion counts over opportunities.

    weight(edit) = (how often it happened + prior) / (how often its letters stood there + prior * outcomes)

    Where several edits give the same (which of two equal letters was left out?) each counts by its probability under
    the channel so far, in several rounds (expectation maximisation). Pairs that no single edit explains are left out.

    Raises:
        UsageError: no pair in which the two differ, or none in which they agree.
    """
    counted = Counter(pairs)
    wrong = {pair: n for pair, n in counted.items() if pair[0] != pair[1]}
    total, errors = sum(counted.values()), sum(wrong.values())
    if not errors or errors == total:
        raise UsageError("a channel is learned from pairs (typed, word) of which some differ and some agree")
    chances: Counter[tuple[str, ...]] = Counter()
    for (_, word), n in counted.items():
        for before, x in zip(BEGIN + word, word + BEGIN, strict=True):
            chances[before,] += n
            chances[before, x] += n
    explained = {pair: [edit for edit, typed in edits(pair[1], letters) if typed == pair[0]] for pair in wrong}
    channel = EditChannel(errors / total, letters=letters)
    for _ in range(rounds):
        happened: Counter[Edit] = Counter()
        for pair, ways in explained.items():
            mass = sum(map(channel.weight, ways))
            for edit in ways:
                happened[edit] += wrong[pair] * channel.weight(edit) / mass  # type: ignore[assignment]
        channel = EditChannel(errors / total, _weights(happened, chances, prior, letters), 0.0, letters)
    return channel


def _weights(
    happened: Mapping[Edit, float], chances: Mapping[tuple[str, ...], int], prior: float, letters: str
) -> dict[Edit, float]:
    weights: dict[Edit, float] = {}
    for x in BEGIN + letters:
        for y in letters:
            alone, together = chances.get((x,), 0), chances.get((x, y), 0)
            for kind, chance, outcomes in (
                ("insert", alone, len(letters)),
                ("replace", alone, len(letters)),
                ("delete", together, 2),
                ("exchange", together, 2),
            ):
                edit = Edit(kind, x, y)
                weights[edit] = (happened.get(edit, 0.0) + prior) / (chance + prior * outcomes)
    return weights
