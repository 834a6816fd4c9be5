"""Good-Turing estimation: how often will be seen again what was seen r times, and what was never seen.

I. J. Good, "The population frequencies of species and the estimation of population parameters", 1953 (the idea is
Turing's): with n_r the number of species seen r times, a species seen r times is worth

    r* = (r + 1) n_{r+1} / n_r             and all unseen ones together  n_1 / N

W. A. Gale, G. Sampson, "Good-Turing frequency estimation without tears", 1995: n_r is smoothed by a line through
log n_r over log r, which is used from where it no longer differs from the raw estimate by more than chance.
"""

import numpy as np

CONFIDENCE = 1.96
"""Standard deviations by which the raw estimate must differ from the line to be kept (Gale & Sampson 1995)."""


def turing(counts_of_counts: np.ndarray, r: np.ndarray) -> np.ndarray:
    """r* = (r + 1) n_{r+1} / n_r, for r (m,); counts_of_counts[r] is n_r, and must be above 0 for each r."""
    following = np.append(counts_of_counts, 0)[np.minimum(r + 1, len(counts_of_counts))]
    return (r + 1) * following / counts_of_counts[r]


def simple_good_turing(counts: np.ndarray) -> tuple[np.ndarray, float]:
    """The smoothed counts r* and the share of the unseen.

    Args:
        counts: (U,) int64, how often each species was seen.

    Returns:
        adjusted: (max + 1,) float64, r* for every r that occurs; their sum over the species is (1 - p0) N.
        p0: n_1 / N. Where every species was seen once, nothing is known of the others: p0 is 1 and r* 0.
    """
    seen = counts[counts > 0]
    n = np.bincount(seen)  # n[r], r from 0
    r = np.flatnonzero(n)
    total, p0 = float((r * n[r]).sum()), float(n[1]) / float((r * n[r]).sum()) if len(n) > 1 else 0.0
    star = _switched(n, r)
    adjusted = np.zeros(len(n))
    # renormalised, so that what was seen gets 1 - p0 together
    adjusted[r] = star * (1 - p0) * total / (star * n[r]).sum()
    return adjusted, p0


def _switched(n: np.ndarray, r: np.ndarray) -> np.ndarray:
    """r* for each r: the raw estimates while they differ from the line, then the line. (m,)"""
    if len(r) < 2:
        return r.astype(float)  # no line through one point
    slope = _line(n, r)
    # the line's estimate: (r + 1) S(r + 1) / S(r), with S(r) = e^a r^slope
    star = r * (1 + 1 / r) ** (slope + 1)
    for i, count in enumerate(r):
        if count + 1 >= len(n) or not n[count + 1]:
            break
        raw = (count + 1) * n[count + 1] / n[count]
        deviation = np.sqrt((count + 1) ** 2 * n[count + 1] / n[count] ** 2 * (1 + n[count + 1] / n[count]))
        if abs(raw - star[i]) <= CONFIDENCE * deviation:
            break
        star[i] = raw
    return star


def _line(n: np.ndarray, r: np.ndarray) -> float:
    """The slope of log Z over log r, with Z_r = n_r / (half the way from the r before to the r after)."""
    before = np.concatenate([[0], r[:-1]])
    after = np.concatenate([r[1:], [2 * r[-1] - before[-1]]])
    z = n[r] / (0.5 * (after - before))
    return float(np.polyfit(np.log(r), np.log(z), 1)[0])
