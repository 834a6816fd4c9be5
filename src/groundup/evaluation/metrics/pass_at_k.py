"""pass@k: the chance that one of k programs passes (Chen et al. 2021, Codex)."""

from groundup.base.errors import UsageError


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """1 - C(n - c, k) / C(n, k): the share of all choices of k among n samples, c of them correct, that hold a correct
    one. Unbiased, where 1 - (1 - c/n)^k is too low.

    It is computed as 1 - prod over i = n-c+1 .. n of (1 - k/i), without large numbers.
    """
    if not 0 <= correct <= samples or not 1 <= k <= samples:
        raise UsageError(f"pass@{k} of {samples} samples with {correct} correct: k and correct are at most the samples")
    if samples - correct < k:
        return 1.0
    failing = 1.0
    for i in range(samples - correct + 1, samples + 1):
        failing *= 1 - k / i
    return 1 - failing
