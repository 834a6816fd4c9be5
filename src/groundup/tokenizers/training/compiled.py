"""Counting and learning with the loops of `kernels`: the arrays they work on, and room for them as they fill up.

The readable forms are `collections.Counter` and `byte_bpe.Learner`; both ways learn the same merges.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from groundup.tokenizers.byte_symbols import BYTE_TO_SYMBOL, to_bytes, to_symbols
from groundup.tokenizers.compiled import CompiledCutter
from groundup.tokenizers.pretokenize import PATTERNS

FEWEST = 2**16  # places of a table to begin with; sizes of tables are powers of two
PAIRS = 2**18  # and of bytes there are 2^16 pairs, so the first count has room
ONCE_EACH = np.empty(0, np.int64)


@dataclass
class Pieces:
    """Different pieces and how often each occurs.

    Attributes:
        spelled: uint8, their bytes, one behind the other.
        starts: int64 (n + 1,), where each begins and the last ends.
        counts: int64 (n,).
    """

    spelled: np.ndarray
    starts: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> "Pieces":
        """From a mapping."""
        parts = [piece.encode("utf-8") for piece in counts]
        starts = np.zeros(len(parts) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)), out=starts[1:])
        spelled = np.frombuffer(b"".join(parts), np.uint8).copy()
        return cls(spelled, starts, np.fromiter(counts.values(), np.int64, len(parts)))

    def as_dict(self) -> dict[str, int]:
        """As a mapping."""
        data, starts = self.spelled.tobytes(), self.starts.tolist()
        pieces = (data[a:b].decode("utf-8") for a, b in itertools.pairwise(starts))
        return dict(zip(pieces, self.counts.tolist(), strict=True))

    def __len__(self) -> int:
        return len(self.counts)


class CompiledCounter:
    """Counts the pieces of texts; its memory grows with the number of different pieces.

    Args:
        pattern: one of `pretokenize.RULES`.
        normalize: what is done to each text before.
    """

    def __init__(self, pattern: str = PATTERNS["gpt2"], normalize: Callable[[str], str] = str):
        from groundup.tokenizers.kernels import counting

        self._cut, self._kernels, self._normalize = CompiledCutter(pattern), counting, normalize
        self.keys, self.numbers = np.zeros(FEWEST, np.uint64), np.zeros(FEWEST, np.int32)
        self.spelled, self.starts = np.empty(8 * FEWEST, np.uint8), np.zeros(FEWEST // 2 + 1, np.int64)
        self.counts, self.used = np.zeros(FEWEST // 2, np.int64), np.zeros(2, np.int64)

    def add(self, texts: Sequence[str]) -> None:
        """Count the pieces of these texts."""
        data, ends, _ = self._cut(list(map(self._normalize, texts)))
        self._count(data, ends, ONCE_EACH)

    def add_pieces(self, pieces: Pieces) -> None:
        """Add counts made elsewhere."""
        self._count(pieces.spelled, pieces.starts[1:], pieces.counts)

    def _count(self, data: np.ndarray, ends: np.ndarray, weights: np.ndarray) -> None:
        done = 0
        while True:
            start = int(ends[done - 1]) if done else 0
            tables = (self.keys, self.numbers, self.spelled, self.starts, self.counts, self.used)
            done = self._kernels.count(data, start, ends, done, weights, *tables)
            if done == len(ends):
                return
            self._grow(int(ends[done]) - (int(ends[done - 1]) if done else 0))

    def _grow(self, more: int) -> None:
        """Twice the room of what is full, and at least `more` bytes for a piece."""
        pieces, filled = map(int, self.used)
        if filled + more > len(self.spelled):
            self.spelled = longer(self.spelled, 2 * len(self.spelled) + more)
        if pieces >= len(self.counts):
            self.starts, self.counts = longer(self.starts, 2 * pieces + 1), longer(self.counts, 2 * pieces)
            self.keys, self.numbers = np.zeros(4 * pieces, np.uint64), np.zeros(4 * pieces, np.int32)
            self._kernels.fill(self.keys, self.numbers, self.spelled, self.starts, pieces)

    def result(self) -> Pieces:
        """What was counted."""
        pieces, filled = self.used
        return Pieces(self.spelled[:filled], self.starts[: pieces + 1], self.counts[:pieces])


def together(counted: Sequence[Pieces]) -> Pieces:
    """The sum of several counts."""
    total = CompiledCounter()
    for pieces in counted:
        total.add_pieces(pieces)
    return total.result()


class CompiledLearner:
    """`byte_bpe.Learner` over arrays: the same merges in the same order.

    Args:
        words: the counted pieces.
        vocab: token -> id to begin with, ids in order from 0; `learn` adds to it.
        vocab_size: tokens wanted.
        min_frequency: a pair seen less often is not merged.
        forbidden: tokens at the beginning of `vocab` that no merge may make.
    """

    def __init__(
        self, words: Pieces, vocab: dict[str, int], vocab_size: int, min_frequency: int, forbidden: frozenset[str]
    ):
        from groundup.tokenizers.kernels import learning

        self.kernels: Any = learning
        self.vocab, self.vocab_size = vocab, vocab_size
        self.least, self.control = max(1, min_frequency), len(forbidden)
        assert set(list(vocab)[: self.control]) == forbidden
        ids = np.array([vocab[BYTE_TO_SYMBOL[byte]] for byte in range(256)], np.int32)
        total = len(words.spelled)
        self.words = (ids[words.spelled], words.starts[:-1], words.starts[1:].copy(), words.counts)
        self.keys, self.numbers = np.zeros(4 * PAIRS, np.uint64), np.zeros(4 * PAIRS, np.int32)
        self.pairs, self.counts = np.empty((PAIRS, 2), np.int32), np.empty(PAIRS, np.int64)
        self.heads, self.touched = np.empty(PAIRS, np.int32), np.empty(PAIRS, np.int32)
        # A word is noted at most once for each of its pairs and twice for each of the merges in it. Memory that is
        # never written to costs nothing.
        self.links, self.heap = np.empty((3 * total, 2), np.int32), np.empty((3 * total, 3), np.int64)
        self.used = np.zeros(6, np.int64)
        self.merges = np.empty((vocab_size, 3), np.int32)
        self._spell(vocab)
        self.kernels.count_pairs(*self.words, *self._pair_tables(), self.used)

    def _spell(self, vocab: Iterable[str]) -> None:
        parts = [to_bytes(token) or b"" for token in vocab]
        size = self.kernels.BYTES, self.kernels.TOKENS
        self.used[size[0]], self.used[size[1]] = sum(map(len, parts)), len(parts)
        self.spelled = longer(np.frombuffer(b"".join(parts), np.uint8), 16 * self.vocab_size + 4096)
        self.starts = np.zeros(self.vocab_size + 2, np.int64)
        self.starts[1 : len(parts) + 1] = np.cumsum([len(part) for part in parts])
        places = 1 << (2 * self.vocab_size).bit_length()
        self.token_keys, self.tokens = np.zeros(places, np.uint64), np.zeros(places, np.int32)
        from groundup.tokenizers.kernels.encoding import fill_pieces

        spelled = np.flatnonzero([bool(part) for part in parts])
        fill_pieces(spelled, self.spelled, self.starts, self.token_keys, self.tokens)

    def _pair_tables(self) -> Any:
        return self.keys, self.numbers, self.pairs, self.counts, self.heads, self.links, self.touched, self.heap

    def learn(self, steps: int) -> bool:
        """Learn up to `steps` merges; whether there are more to learn."""
        kernels, goal = self.kernels, int(self.used[self.kernels.MERGES]) + steps
        while (left := goal - int(self.used[kernels.MERGES])) > 0:
            token_tables = (self.token_keys, self.tokens, self.spelled, self.starts)
            limits = (self.control, self.least, self.vocab_size, self.merges, left)
            why = kernels.learn(*self.words, *self._pair_tables(), self.used, *token_tables, *limits)
            if why == kernels.NOTHING:
                return False
            if why == kernels.ENOUGH:
                break
            self._grow()
        return self.size < self.vocab_size

    @property
    def size(self) -> int:
        """Tokens so far."""
        return int(self.used[self.kernels.TOKENS])

    def _grow(self) -> None:
        kernels = self.kernels
        self.merges = longer(self.merges, len(self.merges) + self.vocab_size)
        self.spelled = longer(self.spelled, 2 * len(self.spelled))
        count = int(self.used[kernels.PAIRS])
        if not kernels.full(self.keys, self.pairs, self.used, 2 * self.size + 2):
            return
        room = 2 * len(self.pairs) + 2 * self.vocab_size
        self.pairs, self.counts = longer(self.pairs, room), longer(self.counts, room)
        self.heads, self.touched = longer(self.heads, room), longer(self.touched, room)
        places = 1 << (4 * room).bit_length()
        self.keys, self.numbers = np.zeros(places, np.uint64), np.zeros(places, np.int32)
        from groundup.tokenizers.kernels.hashing import fill_pairs

        fill_pairs(
            self.pairs[:count, 0], self.pairs[:count, 1], np.arange(count, dtype=np.int32), self.keys, self.numbers
        )

    def result(self) -> list[tuple[str, str]]:
        """The merges; `vocab` gets the tokens that they made."""
        data, starts = self.spelled.tobytes(), self.starts.tolist()
        spelling = list(self.vocab)
        for token in range(len(spelling), self.size):
            spelling.append(to_symbols(data[starts[token] : starts[token + 1]]))
            self.vocab[spelling[token]] = token
        done = self.merges[: self.used[self.kernels.MERGES]].tolist()
        return [(spelling[left], spelling[right]) for left, right, _ in done]


def longer(array: np.ndarray, size: int) -> np.ndarray:
    """The array with room for `size` rows."""
    grown = np.empty((size, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array[:size]
    return grown
