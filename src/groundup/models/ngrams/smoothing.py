"""From counts to probabilities.

Every method ends in the same two tables for each order k, those of an ARPA file: the probability of each k-gram that
was seen, and for each context what its unseen symbols get of the next shorter context's probability:

    p_k(w|h) = seen[h w]                 if h w was seen
               back_off[h] p_{k-1}(w|h')   otherwise (h' is h without its first symbol; an unseen h has back_off 1)
    p_0(w)   = 1 / V

Interpolating methods fit in: their `seen` holds the part of the shorter context already. S. F. Chen, J. Goodman, "An
empirical study of smoothing techniques for language modeling", 1999, compares them; notation as there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from groundup.models.configs import ngram as configs
from groundup.models.ngrams.counts import Counts, Order, Symbols, symbols
from groundup.models.ngrams.good_turing import simple_good_turing

BUCKETS = 24
"""Jelinek-Mercer's classes of contexts: c(h) from 2^b to 2^(b+1) - 1."""


@dataclass(frozen=True)
class Table:
    """One order, smoothed. U: k-grams, H: contexts.

    Attributes:
        keys: (U,) int64, ascending: number of the context (V + 1) + symbol.
        seen: (U,) float64, p_k of the k-gram.
        back_off: (H,) float64.
    """

    keys: np.ndarray
    seen: np.ndarray
    back_off: np.ndarray


@dataclass(frozen=True)
class Tables:
    """A smoothed model.

    Attributes:
        orders: of k = 1 to n.
        vocabulary: V.
        unseen: back_off of contexts that were never seen.
        discounts: what each order's discounts were, where the method has some.
    """

    orders: list[Table]
    vocabulary: int
    unseen: float = 1.0
    discounts: list[np.ndarray] = field(default_factory=list)


def smooth(documents: Sequence[Symbols], order: int, vocabulary: int, config: configs.SmoothingConfig) -> Tables:
    """Count the documents' n-grams and smooth them."""
    kind: str = config.kind  # type: ignore[attr-defined]
    if kind == "jelinek_mercer":
        return jelinek_mercer(documents, order, vocabulary, config)
    return METHODS[kind](Counts(documents, order, vocabulary), config)


# -- only the highest order --------------------------------------------------------------------------------------------


def additive(counts: Counts, config: Any) -> Tables:
    """(c(h w) + k) / (c(h) + k V); with k = 0 the frequencies themselves, and 1 / V where h was never seen."""
    k = getattr(config, "k", 0.0)
    tables = [Table(o.keys, np.full(len(o.keys), 1 / counts.vocabulary), np.ones(o.contexts)) for o in counts.orders]
    top = counts.orders[-1]
    total = top.by_context(top.count)
    whole = total + k * counts.vocabulary
    seen = _divided(top.count + k, whole[top.context], 1 / counts.vocabulary)
    # an unseen w gets k / (c(h) + k V) = back_off / V
    tables[-1] = Table(top.keys, seen, _divided(k * counts.vocabulary * np.ones(top.contexts), whole, 1.0))
    return Tables(tables, counts.vocabulary)


# -- interpolation -----------------------------------------------------------------------------------------------------


def interpolated(
    counts: Counts, split: Callable[[Order, int], tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> list[Table]:
    """p_k = kept / whole + (rest / whole) p_{k-1}: what the interpolating methods share.

    Args:
        counts: of all orders.
        split: (order, k) -> kept (U,), whole (H,), rest (H,). A context with nothing (whole 0) takes p_{k-1}.
    """
    lower, tables = np.array([1 / counts.vocabulary]), []
    for k, order in enumerate(counts.orders, start=1):
        kept, whole, rest = split(order, k)
        back_off = _divided(rest, whole, 1.0)
        lower = _divided(kept, whole[order.context], 0.0) + back_off[order.context] * lower[order.suffix]
        tables.append(Table(order.keys, lower, back_off))
    return tables


def witten_bell(counts: Counts, config: Any) -> Tables:
    """(c(h w) + T p_{k-1}) / (c(h) + T), T = N1+(h .)."""

    def split(order: Order, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        types = order.by_context(order.count > 0)
        return order.count, order.by_context(order.count) + types, types

    return Tables(interpolated(counts, split), counts.vocabulary)


def discounting(counts: Counts, find: Callable[[np.ndarray], np.ndarray], continuation: bool) -> Tables:
    """max(c - D(c), 0) / c(h) + g(h) p_{k-1}, g(h) = sum of what was taken / c(h).

    Args:
        counts: of all orders.
        find: counts (U,) -> D for counts of 0, 1, 2, and 3 or more, (4,).
        continuation: below the highest order, count different symbols to the left in place of occurrences.
    """
    discounts_of: list[np.ndarray] = []

    def split(order: Order, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        count = order.left if continuation and k < counts.order else order.count
        discount = find(count)
        discounts_of.append(discount[1:])
        taken = np.minimum(discount[np.minimum(count, 3)], count)
        return count - taken, order.by_context(count), order.by_context(taken)

    tables = interpolated(counts, split)
    return Tables(tables, counts.vocabulary, discounts=discounts_of)


def absolute_discounting(counts: Counts, config: Any) -> Tables:
    """One discount an order."""
    return discounting(counts, lambda count: one_discount(count, config.discount), continuation=False)


def kneser_ney(counts: Counts, config: Any) -> Tables:
    """One discount an order, continuation counts below the highest."""
    return discounting(counts, lambda count: one_discount(count, config.discount), continuation=True)


def modified_kneser_ney(counts: Counts, config: Any) -> Tables:
    """Three discounts an order, continuation counts below the highest."""
    return discounting(counts, discounts, continuation=True)


def one_discount(counts: np.ndarray, given: float | None = None) -> np.ndarray:
    """D = n1 / (n1 + 2 n2) for every count (Ney et al. 1994), at most 0.9; (4,) for counts 0, 1, 2, 3 and more."""
    n1, n2 = (int(n) for n in np.bincount(np.minimum(counts, 3), minlength=4)[1:3])
    found = min(n1 / (n1 + 2 * n2) if n1 else 0.5, 0.9) if given is None else given
    return np.array([0.0, *[found] * 3])


def discounts(counts: np.ndarray) -> np.ndarray:
    """D for counts 0, 1, 2 and 3 or more, (4,) float64; Chen and Goodman 1999, equation 26.

    Y = n1 / (n1 + 2 n2),  D1 = 1 - 2 Y n2/n1,  D2 = 2 - 3 Y n3/n2,  D3 = 3 - 4 Y n4/n3.  Where a text is so small that
    some count of counts is missing, the one discount of Kneser and Ney serves for all.
    """
    n1, n2, n3, n4 = (int(n) for n in np.bincount(np.minimum(counts, 5), minlength=6)[1:5])
    if not (n1 and n2 and n3):
        return one_discount(counts)
    y = n1 / (n1 + 2 * n2)
    found = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    return np.clip(found, 0.0, np.array([0.0, 1.0, 2.0, 3.0]))


def jelinek_mercer(documents: Sequence[Symbols], order: int, vocabulary: int, config: Any) -> Tables:
    """λ c(h w) / c(h) + (1 - λ) p_{k-1}: the weights are learned on the end of the text, then all of it is counted."""
    if config.weight is not None:
        weights = np.full((order, BUCKETS), config.weight)
    else:
        begin, end = cut_end([symbols(document) for document in documents], config.held_out)
        weights = learned_weights(Counts(begin, order, vocabulary), end)
    counts = Counts(documents, order, vocabulary)

    def split(table: Order, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        total = table.by_context(table.count)
        weight = weights[k - 1, bucket(total)]  # (H,)
        return weight[table.context] * table.count, total, (1 - weight) * total

    return Tables(interpolated(counts, split), vocabulary)


def bucket(total: np.ndarray) -> np.ndarray:
    """The class of a context by how often it was seen: floor(log2 c(h)), at most `BUCKETS` - 1."""
    return np.minimum(np.log2(np.maximum(total, 1)).astype(np.int64), BUCKETS - 1)


def cut_end(documents: Sequence[np.ndarray], share: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The documents' symbols in order, parted such that the end has about `share` of them and neither is empty."""
    whole = sum(map(len, documents))
    room = max(1, min(whole - 1, round(whole * (1 - share))))
    begin, end = [], []
    for document in documents:
        kept = min(len(document), room)
        room -= kept
        begin.append(document[:kept])
        end.append(document[kept:])
    return begin, [part for part in end if len(part)]


def learned_weights(counts: Counts, held_out: Sequence[np.ndarray], rounds: int = 20) -> np.ndarray:
    """λ of each order and class of contexts, (n, BUCKETS): expectation maximisation on held-out documents.

    A token is drawn thus: from order n downwards, stay with λ and draw from the frequencies, or go one order down.
    """
    frequency, classes = _looked_up(counts, held_out)  # (n, N) c(h w) / c(h); (n, N) its class, -1 for an unseen h
    orders = len(frequency)
    weights = np.full((orders, BUCKETS), 0.5)
    for _ in range(rounds):
        here = np.where(classes >= 0, np.take_along_axis(weights, np.maximum(classes, 0), 1), 0.0)
        p = np.full((orders + 1, frequency.shape[1]), 1 / counts.vocabulary)
        for k in range(orders):
            p[k + 1] = here[k] * frequency[k] + (1 - here[k]) * p[k]
        # posteriors: the token was drawn at order k, or came past it
        reach = np.ones(frequency.shape[1]) / p[-1]
        for k in reversed(range(orders)):
            stayed, passed = reach * here[k] * frequency[k], reach * (1 - here[k]) * p[k]
            reach = reach * (1 - here[k])
            known = classes[k] >= 0
            stay = np.bincount(classes[k][known], stayed[known], BUCKETS)
            go = np.bincount(classes[k][known], passed[known], BUCKETS)
            # half a token each way beside those seen: a weight of 1 would make new symbols impossible
            weights[k] = (stay + 0.5) / (stay + go + 1)
    return weights


def _looked_up(counts: Counts, documents: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """For each symbol of the documents and each order: c(h w) / c(h), and the class of h (-1: unseen)."""
    from groundup.models.ngrams.counts import joined

    stream = joined(documents, counts.order, counts.vocabulary)
    wanted = np.flatnonzero(stream != counts.vocabulary)
    frequency, classes = [], []
    number = np.zeros(len(stream), np.int64)
    for k, order in enumerate(counts.orders):
        context = np.concatenate([[0 if k == 0 else -1], number[:-1]])
        key = context * (counts.vocabulary + 1) + stream
        at = np.minimum(np.searchsorted(order.keys, key), len(order.keys) - 1)
        found = (context >= 0) & (order.keys[at] == key)
        total = order.by_context(order.count)[np.maximum(context, 0)]
        known = (context >= 0) & (total > 0)
        frequency.append(np.where(found & known, order.count[at] / np.maximum(total, 1), 0.0)[wanted])
        classes.append(np.where(known, bucket(total), -1)[wanted])
        number = np.where(found, at, -1)
    return np.array(frequency), np.array(classes)


# -- back-off ----------------------------------------------------------------------------------------------------------


def katz(counts: Counts, config: Any) -> Tables:
    """d(c) c(h w) / c(h) for what was seen; what that leaves goes to the unseen in proportion to p_{k-1}.

    back_off(h) = (1 - sum of p_k over the seen w) / (1 - sum of p_{k-1} over them)
    """
    lower, tables = np.array([1 / counts.vocabulary]), []
    for order in counts.orders:
        factor = katz_discounts(order.count, config.cutoff)  # d by count
        total = order.by_context(order.count)
        seen = _divided(factor[order.count] * order.count, total[order.context], 0.0)
        below, real = lower[order.suffix], order.count > 0
        # a context with large counts alone would leave nothing: there the discount is absolute
        poor = (order.by_context(seen) > 1 - 1e-9)[order.context] & real
        fixed = order.count - one_discount(order.count)[1]
        seen = np.where(poor, _divided(fixed, total[order.context], 0.0), seen)
        left, room = 1 - order.by_context(seen), 1 - order.by_context(below * real)
        # where every symbol was seen nothing is left for others: the seen ones share it
        full = (room < 1e-9) & (total > 0)
        seen = np.where(full[order.context], seen / np.maximum(1 - left, 1e-300)[order.context], seen)
        back_off = np.where(total > 0, np.where(full, 0.0, left / np.maximum(room, 1e-300)), 1.0)
        lower = np.where(real, seen, back_off[order.context] * below)
        tables.append(Table(order.keys, lower, back_off))
    return Tables(tables, counts.vocabulary)


def katz_discounts(counts: np.ndarray, cutoff: int | None) -> np.ndarray:
    """d(r) for r = 0 to the largest count: r* / r, corrected so that counts above the cutoff K keep all of theirs.

    d(r) = (r* / r - A) / (1 - A),  A = (K + 1) n_{K+1} / n_1          (Katz 1987, equation 8)

    Where the counts of counts of a small text give no such discount (n_r = 0, or d outside of 0 to 1), it is absolute
    discounting's (r - D) / r.
    """
    n = np.bincount(counts[counts > 0], minlength=(cutoff or 0) + 2)
    r = np.arange(len(n))
    fallback = 1 - one_discount(counts)[1] / np.maximum(r, 1)
    if cutoff is None:
        adjusted, _ = simple_good_turing(counts)
        found = adjusted / np.maximum(r, 1)
        return np.where((found > 0) & (found < 1), found, fallback)
    if not n[1 : cutoff + 2].all():
        return np.where(r <= cutoff, fallback, 1.0)
    share = (cutoff + 1) * n[cutoff + 1] / n[1]
    small = np.arange(1, cutoff + 1)
    found = ((small + 1) * n[small + 1] / n[small] / small - share) / (1 - share)
    if share >= 1 or not ((found > 0) & (found < 1)).all():
        return np.where(r <= cutoff, fallback, 1.0)
    return np.concatenate([[0.0], found, np.ones(len(n) - cutoff - 1)])


def stupid_backoff(counts: Counts, config: Any) -> Tables:
    """c(h w) / c(h) where that is not 0, else α times the score of the shorter context."""
    lower, tables = np.array([1 / counts.vocabulary]), []
    for order in counts.orders:
        total = order.by_context(order.count)
        seen = _divided(order.count, total[order.context], 0.0)
        lower = np.where(order.count > 0, seen, config.alpha * lower[order.suffix])
        tables.append(Table(order.keys, lower, np.full(order.contexts, config.alpha)))
    return Tables(tables, counts.vocabulary, unseen=config.alpha)


def _divided(value: np.ndarray, by: np.ndarray, otherwise: float) -> np.ndarray:
    """Value / by; `otherwise` where `by` is 0."""
    return np.where(by > 0, value / np.where(by > 0, by, 1), otherwise)


METHODS: dict[str, Callable[[Counts, Any], Tables]] = {
    "maximum_likelihood": additive,
    "additive": additive,
    "witten_bell": witten_bell,
    "absolute_discounting": absolute_discounting,
    "katz": katz,
    "kneser_ney": kneser_ney,
    "modified_kneser_ney": modified_kneser_ney,
    "stupid_backoff": stupid_backoff,
}
