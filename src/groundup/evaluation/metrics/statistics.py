"""Means and their standard errors."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A mean over items, and its standard error (nan for fewer than two items)."""

    value: float
    stderr: float
    items: int

    def __str__(self) -> str:
        return f"{self.value:.4f} ± {self.stderr:.4f} ({self.items} items)"


def mean(values: Sequence[float]) -> Estimate:
    """The mean with s / sqrt(n), s the sample standard deviation; nan for no values."""
    n = len(values)
    if n == 0:
        return Estimate(math.nan, math.nan, 0)
    centre = math.fsum(values) / n
    if n == 1 or not math.isfinite(centre):
        return Estimate(centre, math.nan, n)
    variance = math.fsum((x - centre) ** 2 for x in values) / (n - 1)
    return Estimate(centre, math.sqrt(variance / n), n)


def bootstrap(
    values: Sequence[float], statistic: Callable[[np.ndarray], float] = np.mean, *, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """A statistic with its standard error over resamples with replacement (Efron 1979); for what has no formula."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) == 0:
        return Estimate(math.nan, math.nan, 0)
    picks = np.random.default_rng(seed).integers(0, len(array), size=(resamples, len(array)))
    spread = np.std([statistic(array[pick]) for pick in picks], ddof=1) if len(array) > 1 else math.nan
    return Estimate(float(statistic(array)), float(spread), len(array))


def ratio_stderr(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Standard error of sum(y) / sum(x) over pairs, linearised (Cochran 1977, section 6.4); nan for fewer than 2."""
    y, x = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    n = len(y)
    if n < 2 or not np.isfinite(y).all():
        return math.nan
    residual = y - y.sum() / x.sum() * x
    return float(np.sqrt((residual**2).sum() / (n - 1) * n) / x.sum())
