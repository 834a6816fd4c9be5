"""What a smoothed n-gram model says about documents."""

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
