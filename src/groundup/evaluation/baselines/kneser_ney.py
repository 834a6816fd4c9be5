"""Interpolated modified Kneser-Ney n-grams over bytes or token ids.

R. Kneser, H. Ney, "Improved backing-off for m-gram language modeling", 1995: lower orders count in how many different
contexts a symbol was seen, not how often. S. F. Chen, J. Goodman, "An empirical study of smoothing techniques for
language modeling", 1999: interpolation, and three discounts for each order.

    p_k(w|h) = max(c(h w) - D(c(h w)), 0) / c(h)  +  g(h) p_{k-1}(w|h')       h' is h without its first symbol
    g(h)     = (D1 N1(h) + D2 N2(h) + D3 N3+(h)) / c(h)                       p_0(w) = 1 / V
    c(h w)   = how often h w was seen for the highest order, N1+(. h w) below it; c(h) is its sum over w
    Ni(h)    = number of w with c(h w) = i;  an unseen h takes p_{k-1}
    Y = n1 / (n1 + 2 n2),  D1 = 1 - 2 Y n2/n1,  D2 = 2 - 3 Y n3/n2,  D3 = 3 - 4 Y n4/n3     n_i: k-grams with count i

Documents are preceded by n - 1 start symbols, which are never predicted; no end is predicted.

How it is computed: an n-gram is a number, (number of its context) * (V + 1) + symbol. Sorting these numbers once for
each order gives the table, and a lookup is a binary search. Five orders of five million symbols take seconds.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import numpy as np

from groundup.base.errors import UsageError
from groundup.evaluation.baselines.baseline import Choices, NotFitted, Symbols
from groundup.evaluation.baselines.counts import symbols


class Order(NamedTuple):
    """The table of one order. U: different k-grams, H: different contexts."""

    keys: np.ndarray  # (U,) int64, ascending: context * (V + 1) + symbol
    weight: np.ndarray  # (U,) float64: max(c - D(c), 0)
    total: np.ndarray  # (H,) float64: c(h)
    back: np.ndarray  # (H,) float64: g(h) c(h)


class KneserNey:
    """An n-gram model. `vocabulary` is the number of symbols, 256 for bytes."""

    def __init__(self, order: int = 5, vocabulary: int = 256):
        if order < 1 or vocabulary < 1:
            raise UsageError(f"an n-gram model needs order >= 1 and vocabulary >= 1, got {order} and {vocabulary}")
        self.order, self.vocabulary = order, vocabulary
        self.name = f"Kneser-Ney {order}-gram"
        self.tables: list[Order] = []
        self.discounts: list[np.ndarray] = []

    def fit(self, documents: Sequence[Symbols]) -> Self:
        """Count all n-grams of the documents."""
        stream = self._stream(documents)
        predicted = np.flatnonzero(stream != self.vocabulary)
        if not predicted.size:
            raise UsageError(f"{self.name}: the training documents are empty")
        if stream[predicted].max() >= self.vocabulary or stream[predicted].min() < 0:
            raise UsageError(f"{self.name}: a symbol lies outside of the vocabulary of {self.vocabulary}")

        # ids[k][i]: the number of the k-gram that ends at i, and keys[k] what the numbers stand for.
        ids, keys = [np.zeros(len(stream), np.int64)], [np.zeros(1, np.int64)]
        for k in range(1, self.order + 1):
            before = np.concatenate([[0], ids[k - 1][:-1]])
            unique, inverse = np.unique(before * (self.vocabulary + 1) + stream, return_inverse=True)
            ids.append(inverse)
            keys.append(unique)
        self.tables, self.discounts = [], []
        for k in range(1, self.order + 1):
            counts = self._counts(k, ids, keys, predicted)
            self._add_order(keys[k], counts, len(keys[k - 1]))
        return self

    def _counts(self, k: int, ids: list[np.ndarray], keys: list[np.ndarray], predicted: np.ndarray) -> np.ndarray:
        """C of every k-gram: occurrences for the highest order, different symbols to the left of it below."""
        if k == self.order:
            return np.bincount(ids[k][predicted], minlength=len(keys[k]))
        end = np.full(len(keys[k + 1]), -1, np.int64)
        end[ids[k + 1][predicted]] = predicted  # one position for each (k+1)-gram that ends in a predicted symbol
        return np.bincount(ids[k][end[end >= 0]], minlength=len(keys[k]))

    def _add_order(self, keys: np.ndarray, counts: np.ndarray, contexts: int) -> None:
        discount = discounts(counts)  # (4,) for counts 0, 1, 2, 3 and more
        taken = discount[np.minimum(counts, 3)]
        context = keys // (self.vocabulary + 1)
        total = np.bincount(context, counts, contexts)
        back = np.bincount(context, taken, contexts)
        self.discounts.append(discount[1:])
        self.tables.append(Order(keys, counts - taken, total, back))

    def _stream(self, documents: Sequence[Symbols]) -> np.ndarray:
        """All documents in one row, each behind its start symbols."""
        start = np.full(self.order - 1, self.vocabulary, np.int64)
        return np.concatenate([part for document in documents for part in (start, symbols(document))] or [start])

    def log2_probabilities(self, document: Symbols) -> np.ndarray:
        """log2 p of each symbol of a document given those before it, (n,) float64."""
        if not self.tables:
            raise NotFitted(self.name)
        stream = self._stream([document])
        probability = np.full(len(stream), 1 / self.vocabulary)
        gram = np.zeros(len(stream), np.int64)
        for table in self.tables:
            context = np.concatenate([[0 if table is self.tables[0] else -1], gram[:-1]])
            probability, gram = self._interpolate(table, context, stream, probability)
        return np.log2(probability[self.order - 1 :])

    def _interpolate(
        self, table: Order, context: np.ndarray, symbol: np.ndarray, lower: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """p_k from p_{k-1}, and the numbers of the k-grams (-1: unseen). All (n,)."""
        wanted = context * (self.vocabulary + 1) + symbol
        at = np.minimum(np.searchsorted(table.keys, wanted), len(table.keys) - 1)
        seen = (context >= 0) & (table.keys[at] == wanted)
        known = np.maximum(context, 0)
        total = np.where(context >= 0, table.total[known], 0.0)
        # (max(c - D, 0) + g(h) c(h) p_{k-1}) / c(h)
        mixed = (np.where(seen, table.weight[at], 0.0) + table.back[known] * lower) / np.maximum(total, 1.0)
        return np.where(total > 0, mixed, lower), np.where(seen, at, -1)

    def probabilities(self, context: Symbols) -> np.ndarray:
        """P of every symbol after `context`, (V,) float64; their sum is 1."""
        history = symbols(context)[max(0, len(context) - self.order + 1) :].tolist()
        return np.array([2.0 ** self.log2_probabilities([*history, w])[-1] for w in range(self.vocabulary)])

    def bits(self, document: Symbols) -> float:
        """The sum of -log2 p."""
        return -float(self.log2_probabilities(document).sum())

    def answer(self, question: Choices, encode: Callable[[str], Symbols] = str.encode) -> int:
        """The choice that is most probable after the question."""
        # A choice is weighed behind the end of the stem: what lies further back is out of the model's sight.
        stem = symbols(encode(question.stem))
        head = stem[max(0, len(stem) - self.order + 1) :]
        scores = []
        for choice in question.choices:
            text = np.concatenate([head, symbols(encode(f" {choice}\n"))])
            scores.append(self.log2_probabilities(text)[len(head) :].sum())
        return int(np.argmax(scores))


def discounts(counts: np.ndarray) -> np.ndarray:
    """D for counts 0, 1, 2 and 3 or more, (4,) float64; Chen and Goodman 1999, equation 26.

    Where a text is so small that some count of counts is missing, the one discount of Kneser and Ney serves for all.
    """
    n1, n2, n3, n4 = (int(n) for n in np.bincount(np.minimum(counts, 5), minlength=6)[1:5])
    # Y = n1 / (n1 + 2 n2)
    y = n1 / (n1 + 2 * n2) if n1 else 0.5
    if not (n1 and n2 and n3):
        return np.array([0.0, *[min(y, 0.9)] * 3])
    found = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    return np.clip(found, 0.0, np.array([0.0, 1.0, 2.0, 3.0]))
