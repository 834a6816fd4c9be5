"""What a smoothed n-gram model says about documents."""

from collections.abc import Sequence

import numpy as np

from groundup.models.ngrams.counts import Symbols, joined
from groundup.models.ngrams.smoothing import Tables


def log2_probabilities(tables: Tables, document: Symbols) -> np.ndarray:
    """log2 p of each symbol of a document given those before it, (n,) float64; -inf for what is impossible."""
    vocabulary = tables.vocabulary
    stream = joined([document], len(tables.orders), vocabulary)
    probability = np.full(len(stream), 1 / vocabulary)
    gram = np.zeros(len(stream), np.int64)  # the number of the k-gram that ends here; -1: unseen
    for k, table in enumerate(tables.orders):
        context = np.concatenate([[0 if k == 0 else -1], gram[:-1]]) if k else gram
        wanted = context * (vocabulary + 1) + stream
        at = np.minimum(np.searchsorted(table.keys, wanted), len(table.keys) - 1)
        seen = (context >= 0) & (table.keys[at] == wanted)
        back_off = np.where(context >= 0, table.back_off[np.maximum(context, 0)], tables.unseen)
        probability = np.where(seen, table.seen[at], back_off * probability)
        gram = np.where(seen, at, -1)
    with np.errstate(divide="ignore"):
        return np.log2(probability[len(tables.orders) - 1 :])


def next_log2(tables: Tables, context: Sequence[int], candidates: np.ndarray) -> np.ndarray:
    """log2 p of each candidate after a context, (M,) float64. The context is the begin of a document where it is
    shorter than n - 1.

    Args:
        tables: a smoothed model.
        context: ids, of which the last n - 1 count.
        candidates: (M,) int64 ids.
    """
    vocabulary, reach = tables.vocabulary, len(tables.orders) - 1
    past = ([vocabulary] * reach + list(context))[len(context) :]
    probability = np.full(len(candidates), 1 / vocabulary)
    for k, table in enumerate(tables.orders):
        number = _number_of(tables, past[reach - k :])
        if number < 0:
            probability = probability * tables.unseen
            continue
        wanted = number * (vocabulary + 1) + candidates
        at = np.minimum(np.searchsorted(table.keys, wanted), len(table.keys) - 1)
        seen = table.keys[at] == wanted
        probability = np.where(seen, table.seen[at], table.back_off[number] * probability)
    with np.errstate(divide="ignore"):
        return np.log2(probability)


def _number_of(tables: Tables, gram: Sequence[int]) -> int:
    """The number of a k-gram among those seen; -1 for none."""
    number = 0
    for table, symbol in zip(tables.orders, gram, strict=False):
        wanted = number * (tables.vocabulary + 1) + symbol
        at = int(np.searchsorted(table.keys, wanted))
        if at == len(table.keys) or table.keys[at] != wanted:
            return -1
        number = at
    return number
