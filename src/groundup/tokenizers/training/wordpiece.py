r"""Learning a WordPiece vocabulary (Schuster and Nakajima, 2012): join the pair of pieces that gains most, and repeat.

Words begin as characters; all but the first carry the prefix `##`. Two notions of gain:

- "likelihood", the original one: log P(xy) / (P(x) P(y)), with P a piece's share of all pieces in the text. It asks how
  much more often two pieces stand together than they would by chance: `un` + `##able` may be frequent and yet gain
  little, because both occur in many other words.
- "frequency": how often the pair occurs. This is BPE underneath, and what the `tokenizers` library's WordPieceTrainer
  does; on equal counts it prefers the older pieces, whose order inside words is random there and fixed here.

Encoding forgets the merges: it takes the longest piece that fits (`wordpiece`).
"""

import heapq
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from groundup.base.errors import DataError, UsageError
from groundup.tokenizers.tokenizer import MAX_ID

Pair = tuple[int, int]
Score = Literal["likelihood", "frequency"]
PREFIX = "##"


def learn_pieces(
    words: Counter[str],
    size: int,
    *,
    score: Score = "likelihood",
    min_frequency: int = 1,
    prefix: str = PREFIX,
    first: Sequence[str] = (),
    alphabet: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """The vocabulary in order of ids: `first`, the characters, and the joined pieces as they were learnt.

    Args:
        words: word -> how often it occurs.
        size: number of pieces wanted; fewer where no pair is frequent enough.
        score: what a join gains.
        min_frequency: rarer pairs are not joined.
        prefix: what pieces inside a word begin with.
        first: tokens with the first ids, which no join makes.
        alphabet: the characters' order (with and without prefix), which decides between equal gains; if not given,
            characters by code point, then those inside words.
        progress: called with (pieces so far, pieces wanted).

    Raises:
        DataError: there are no words.
        UsageError: `size` has no room for the characters.
    """
    if not words:
        raise DataError("there is no text to learn from: the input is empty")
    symbols = list(dict.fromkeys([*first, *(alphabet_of(words, prefix) if alphabet is None else alphabet)]))
    if not len(symbols) <= size <= MAX_ID:
        raise UsageError(f"vocab_size {size} must be {len(symbols)} to {MAX_ID}: so many characters and special tokens")
    learner = (_ByLikelihood if score == "likelihood" else _ByFrequency)(words, symbols, prefix, min_frequency, first)
    while len(learner.spelling) < size and learner.step():
        if progress is not None:
            progress(len(learner.spelling), size)
    return learner.spelling


def alphabet_of(words: Iterable[str], prefix: str = PREFIX) -> list[str]:
    """The characters of the words by code point, then those inside of words, with the prefix."""
    words = list(words)
    every = sorted({character for word in words for character in word})
    inside = sorted({character for word in words for character in word[1:]})
    return [*every, *(prefix + character for character in inside)]


def gain(pair_count: int, left: int, right: int, total: int) -> float:
    """What joining x and y into z gains in nats, from counts in a text of `total` pieces."""
    # log (c_z / N) / ((c_x / N) (c_y / N)) = log c_z N / (c_x c_y)
    return math.log(pair_count * total / (left * right))


class _Learner:
    """Words as lists of ids, counts of adjacent pairs, and a heap of (-gain, pair).

    An entry whose gain is out of date goes back with the right one; a gain that rose gets a new entry at once.
    """

    def __init__(
        self, words: Counter[str], symbols: list[str], prefix: str, min_frequency: int, forbidden: Iterable[str]
    ):
        self.spelling = symbols
        self.ids = {symbol: number for number, symbol in enumerate(symbols)}
        self.prefix, self.least, self.forbidden = prefix, max(1, min_frequency), frozenset(forbidden)
        self.words = [self._symbols(word) for word in words]
        self.counts = list(words.values())
        self.pair_counts: dict[Pair, int] = defaultdict(int)
        self.where: dict[Pair, set[int]] = defaultdict(set)
        self._count_all()
        self.heap = [(-self.score(pair), pair) for pair in self.pair_counts]
        heapq.heapify(self.heap)

    def _symbols(self, word: str) -> list[int]:
        spelled = [word[0], *(self.prefix + character for character in word[1:])] if word else []
        return [self.ids[symbol] for symbol in spelled if symbol in self.ids]

    def _count_all(self) -> None:
        for number, (word, count) in enumerate(zip(self.words, self.counts, strict=True)):
            for pair in itertools.pairwise(word):
                self.pair_counts[pair] += count
                self.where[pair].add(number)

    def score(self, pair: Pair) -> float:
        """What joining the pair gains; the order is all that counts."""
        raise NotImplementedError

    def step(self) -> bool:
        """Learn one piece; False when no pair is frequent enough."""
        while self.heap:
            negative, pair = self.heap[0]
            count = self.pair_counts[pair]
            if count < self.least:
                heapq.heappop(self.heap)
            elif (now := self.score(pair)) != -negative:
                heapq.heapreplace(self.heap, (-now, pair))
            else:
                heapq.heappop(self.heap)
                if self._joined(pair) not in self.forbidden:
                    self._join(pair)
                    return True
        return False

    def _joined(self, pair: Pair) -> str:
        return self.spelling[pair[0]] + self.spelling[pair[1]].removeprefix(self.prefix)

    def _join(self, pair: Pair) -> None:
        name = self._joined(pair)
        new = self.ids.setdefault(name, len(self.spelling))
        if new == len(self.spelling):
            self.spelling.append(name)
        changed: set[Pair] = set()
        for number in self.where.pop(pair):
            self._join_in_word(number, pair, new, changed)
        self.joined(pair, new, changed)
        for made in changed:
            if self.pair_counts[made] > 0:
                heapq.heappush(self.heap, (-self.score(made), made))

    def joined(self, pair: Pair, new: int, changed: set[Pair]) -> None:
        """What else a join changes; pairs whose gain may have risen are added to `changed`."""

    def _join_in_word(self, number: int, pair: Pair, new: int, changed: set[Pair]) -> None:
        """Replace the pair from left to right, and book the neighbours' pairs that go and come."""
        word, count, place = self.words[number], self.counts[number], 0
        while place < len(word) - 1:
            if (word[place], word[place + 1]) == pair:
                self.replaced(pair, new, count)
                if place:
                    self._exchange((word[place - 1], pair[0]), (word[place - 1], new), number, changed)
                if place + 2 < len(word):
                    self._exchange((pair[1], word[place + 2]), (new, word[place + 2]), number, changed)
                word[place : place + 2] = [new]
            place += 1

    def replaced(self, pair: Pair, new: int, count: int) -> None:
        """One place in the text (in `count` equal words) where the pair became `new`."""

    def _exchange(self, gone: Pair, made: Pair, number: int, changed: set[Pair]) -> None:
        self.pair_counts[gone] -= self.counts[number]
        self.pair_counts[made] += self.counts[number]
        self.where[made].add(number)
        changed.add(made)


class _ByFrequency(_Learner):
    """The gain is the pair's count.

    A joined pair keeps its count, as in the library: should it come up again, the old count is added to the new one.
    """

    def score(self, pair: Pair) -> float:
        return self.pair_counts[pair]


class _ByLikelihood(_Learner):
    """The gain is log P(z) / (P(x) P(y)); its order is that of c_z / (c_x c_y).

    A join makes its parts rarer, and so every pair with one of them gains more.
    """

    def __init__(
        self, words: Counter[str], symbols: list[str], prefix: str, min_frequency: int, forbidden: Iterable[str]
    ):
        self.piece_counts: Counter[int] = Counter()
        self.with_piece: dict[int, set[Pair]] = defaultdict(set)
        super().__init__(words, symbols, prefix, min_frequency, forbidden)

    def _count_all(self) -> None:
        super()._count_all()
        for word, count in zip(self.words, self.counts, strict=True):
            for piece in word:
                self.piece_counts[piece] += count
        for pair in self.pair_counts:
            self._book(pair)

    def _book(self, pair: Pair) -> None:
        self.with_piece[pair[0]].add(pair)
        self.with_piece[pair[1]].add(pair)

    def score(self, pair: Pair) -> float:
        # Python divides whole numbers exactly before rounding: equal fractions are equal here.
        return self.pair_counts[pair] / (self.piece_counts[pair[0]] * self.piece_counts[pair[1]])

    def replaced(self, pair: Pair, new: int, count: int) -> None:
        self.piece_counts[pair[0]] -= count
        self.piece_counts[pair[1]] -= count
        self.piece_counts[new] += count

    def joined(self, pair: Pair, new: int, changed: set[Pair]) -> None:
        self.pair_counts[pair] = 0
        for made in changed:
            self._book(made)
        for piece in set(pair):
            alive = {other for other in self.with_piece[piece] if self.pair_counts[other] > 0}
            self.with_piece[piece] = alive
            changed |= alive
