"""Counts of all n-grams of a text up to an order, in sorted tables.

An n-gram is a number: (number of its context) (V + 1) + symbol, where its context is the (n-1)-gram before the symbol,
and V stands for the start of a document. Sorting these numbers once for each order gives the table, and a lookup is a
binary search. Five orders of ten million symbols take about ten seconds.

Documents are preceded by n - 1 start symbols, which are never predicted; no end is predicted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from groundup.base.errors import UsageError

Symbols = bytes | Sequence[int] | np.ndarray
"""A document: UTF-8 bytes, or token ids."""


def symbols(document: Symbols) -> np.ndarray:
    """A document as int64 (n,)."""
    if isinstance(document, bytes):
        return np.frombuffer(document, np.uint8).astype(np.int64)
    return np.asarray(document, np.int64)


@dataclass(frozen=True)
class Order:
    """The k-grams of one order k. U: different k-grams; H: different (k-1)-grams.

    Attributes:
        keys: (U,) int64, ascending: context (V + 1) + symbol.
        context: (U,) int64, the number of the (k-1)-gram before the symbol.
        suffix: (U,) int64, the number of the (k-1)-gram without the first symbol.
        count: (U,) int64, occurrences whose last symbol is predicted; 0 for those that end in a start.
        left: (U,) int64, how many different symbols stand before it: N1+(. g). Zeros for the highest order.
        contexts: H.
    """

    keys: np.ndarray
    context: np.ndarray
    suffix: np.ndarray
    count: np.ndarray
    left: np.ndarray
    contexts: int

    def by_context(self, values: np.ndarray) -> np.ndarray:
        """Sums of values (U,) over the k-grams of each context, (H,) float64."""
        return np.bincount(self.context, values, self.contexts)


class Counts:
    """All k-grams of the documents, k = 1 to `order`.

    Args:
        documents: bytes, or ids below `vocabulary`.
        order: n, the longest.
        vocabulary: V, the number of symbols.

    Attributes:
        orders: the table of each k, from 1.

    Raises:
        UsageError: no symbol at all, one outside of the vocabulary, or an order or vocabulary below 1.
    """

    def __init__(self, documents: Sequence[Symbols], order: int, vocabulary: int):
        if order < 1 or vocabulary < 1:
            raise UsageError(f"an n-gram model needs order >= 1 and vocabulary >= 1, got {order} and {vocabulary}")
        self.order, self.vocabulary = order, vocabulary
        stream = joined(documents, order, vocabulary)
        predicted = stream != vocabulary
        seen = stream[predicted]
        if not seen.size:
            raise UsageError("n-grams cannot be counted: the training documents are empty")
        if seen.max() >= vocabulary or seen.min() < 0:
            raise UsageError(f"a symbol of the training documents lies outside of the vocabulary of {vocabulary}")
        self.orders: list[Order] = []
        numbers, contexts = np.zeros(len(stream), np.int64), 1  # numbers[i]: which (k-1)-gram ends at i
        for k in range(1, order + 1):
            numbers, contexts = self._count(k, stream, predicted, numbers, contexts)

    def _count(
        self, k: int, stream: np.ndarray, predicted: np.ndarray, numbers: np.ndarray, contexts: int
    ) -> tuple[np.ndarray, int]:
        """Add the table of order k; which k-gram ends at each position, and how many there are."""
        before = np.concatenate([[0], numbers[:-1]])
        keys, found = np.unique(before * (self.vocabulary + 1) + stream, return_inverse=True)
        suffix = np.zeros(len(keys), np.int64)
        suffix[found] = numbers
        count = np.bincount(found[predicted], minlength=len(keys))
        if k > 1:  # every different k-gram is one more symbol to the left of its suffix
            self.orders[-1].left[:] = np.bincount(suffix[count > 0], minlength=contexts)
        context = keys // (self.vocabulary + 1)
        self.orders.append(Order(keys, context, suffix, count, np.zeros(len(keys), np.int64), contexts))
        return found, len(keys)

    @property
    def nbytes(self) -> int:
        """Bytes of all tables."""
        return sum(t.nbytes for o in self.orders for t in (o.keys, o.context, o.suffix, o.count, o.left))


def joined(documents: Sequence[Symbols], order: int, vocabulary: int) -> np.ndarray:
    """All documents in one line, each behind its n - 1 start symbols, (N,) int64."""
    start = np.full(order - 1, vocabulary, np.int64)
    return np.concatenate([part for document in documents for part in (start, symbols(document))] or [start])
