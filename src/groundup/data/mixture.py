"""Several sources in given proportions, and how often each has been read.

A source of n_i tokens with weight w_i is read w_i / sum(w) * B / n_i times in a training of B tokens: GPT-3 saw
Wikipedia 3.4 times and its Common Crawl 0.44 times in 300 billion tokens (Brown et al. 2020, table 2.2).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from groundup.base.errors import DataError, UsageError
from groundup.data.order import scramble
from groundup.data.packing import Rows


class Mixture:
    """Rows of several sources, each drawn with probability weight / sum of weights, independently of all others.

    Which source gives the row at a place depends on (seed, place) alone. Within a source rows come in its own order,
    so each of its rows is used once before any is used again, whatever the weights.
    """

    def __init__(self, parts: Mapping[str, Rows], weights: Sequence[float] | None = None):
        self.names = list(parts)
        self.rows = list(parts.values())
        weights = [len(rows.tokens) for rows in self.rows] if weights is None else weights
        self.weights = np.asarray(weights, dtype=np.float64)
        self._check()
        self.probabilities = self.weights / self.weights.sum()

    def _check(self) -> None:
        if not self.rows:
            raise DataError("a mixture needs at least one source")
        if len(self.weights) != len(self.rows):
            raise UsageError(f"{len(self.weights)} weights for {len(self.rows)} sources ({', '.join(self.names)})")
        if not np.isfinite(self.weights).all() or (self.weights < 0).any() or self.weights.sum() == 0:
            raise UsageError(f"weights must be finite, not negative and not all 0; got {self.weights.tolist()}")
        if len({(rows.context_length, rows.packing) for rows in self.rows}) > 1:
            raise UsageError("the sources of a mixture must share context length and packing")
        for name, rows, weight in zip(self.names, self.rows, self.weights, strict=True):
            if weight > 0 and not len(rows):
                raise DataError(f"the source {name} has no rows")

    @property
    def context_length(self) -> int:
        """Positions in a row."""
        return self.rows[0].context_length

    def choose(self, places: np.ndarray, seed: int) -> np.ndarray:
        """The number of the source for each place, (n,) int64: the first i with u < p_0 + ... + p_i, u uniform in [0,
        1).
        """
        if len(self.rows) == 1:
            return np.zeros(len(places), dtype=np.int64)
        u = (scramble(places, seed, 0x6D69) >> np.uint64(11)) * 2.0**-53
        bounds = np.cumsum(self.weights)
        bounds = (bounds / bounds[-1])[:-1]  # exactly 1 where only sources of weight 0 follow: they are never chosen
        return np.searchsorted(bounds, u, side="right")

    def describe(self) -> dict[str, dict[str, str | int | float]]:
        """By source: what its rows depend on, and its probability."""
        described = zip(self.names, self.rows, self.probabilities.tolist(), strict=True)
        return {name: rows.describe() | {"probability": p} for name, rows, p in described}


def expected_epochs(weights: Sequence[float], tokens: Sequence[float], budget: float) -> list[float]:
    """How often each source of `tokens` tokens is read in a training of `budget` tokens: w_i / sum(w) * budget /
    n_i.
    """
    total = sum(weights)
    return [weight / total * budget / n for weight, n in zip(weights, tokens, strict=True)]
