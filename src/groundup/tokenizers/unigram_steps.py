"""Learning a unigram vocabulary as a textbook tells it (Kudo, 2018), for small texts and for reading.

    P(word) = sum over all ways to cut it of the product of p(piece)

Each round: EM for the p (`expected_counts`, then shares of them); for each piece the loss, which is how much the
likelihood of the text falls without it; keep the best 80 % and every single character. `training/unigram.py` does
the same fast, with a cheaper estimate of the loss.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from groundup.base.errors import DataError, UsageError

Probabilities = dict[str, float]

LEAST = 1e-6  # the least probability of a single character while pieces are pruned


@dataclass(frozen=True)
class Round:
    """What one round did.

    Attributes:
        probabilities: of the pieces, after EM.
        log_likelihood: of the text, after EM.
        losses: log-likelihood that the text loses without each piece of several characters.
        removed: pieces that were let go, those that were missed least first.
    """

    probabilities: Probabilities
    log_likelihood: float
    losses: dict[str, float]
    removed: tuple[str, ...]


def all_substrings(words: Mapping[str, int], longest: int = 8) -> Probabilities:
    """The pieces to begin with: all substrings of the words, with their shares of all occurrences."""
    counts: dict[str, float] = {}
    for word, count in words.items():
        for start in range(len(word)):
            for end in range(start + 1, min(len(word), start + longest) + 1):
                counts[word[start:end]] = counts.get(word[start:end], 0) + count
    if not counts:
        raise DataError("there is no text to learn from: the input is empty")
    return _shares(counts)


def learn(words: Mapping[str, int], size: int, keep: float = 0.8, em_steps: int = 4) -> Iterator[Round]:
    """Rounds of EM and pruning, until `size` pieces (or the single characters alone) are left.

    Raises:
        DataError: no words.
        UsageError: `keep` is not between 0 and 1.
    """
    if not 0 < keep < 1:
        raise UsageError(f"keep must be between 0 and 1, got {keep}")
    pieces = all_substrings(words)
    while True:
        for _ in range(em_steps):
            pieces = _with_characters(em_step(words, pieces))
        losses = {piece: loss(words, pieces, piece) for piece in pieces if len(piece) > 1}
        can_go = len(pieces) - max(size, math.ceil(keep * len(pieces)) if len(pieces) > size else 0)
        removed = tuple(sorted(losses, key=lambda piece: (losses[piece], piece))[: max(0, can_go)])
        yield Round(pieces, log_likelihood(words, pieces), losses, removed)
        if not removed:
            return
        pieces = _shares({piece: p for piece, p in pieces.items() if piece not in removed})


def forward(word: str, pieces: Probabilities) -> list[float]:
    """alpha[i]: the summed probability of all ways to cut word[:i]."""
    alpha = [1.0] + [0.0] * len(word)
    for end in range(1, len(word) + 1):
        # alpha(end) = sum over start of alpha(start) p(word[start:end])
        alpha[end] = sum(alpha[start] * pieces.get(word[start:end], 0.0) for start in range(end))
    return alpha


def backward(word: str, pieces: Probabilities) -> list[float]:
    """beta[i]: the summed probability of all ways to cut word[i:]."""
    beta = [0.0] * len(word) + [1.0]
    for start in reversed(range(len(word))):
        beta[start] = sum(pieces.get(word[start:end], 0.0) * beta[end] for end in range(start + 1, len(word) + 1))
    return beta


def best_cut(word: str, pieces: Probabilities) -> list[str]:
    """The most probable way to cut `word` (Viterbi); of equals the one whose last piece is longest."""
    best: list[tuple[float, list[str]]] = [(1.0, [])]
    for end in range(1, len(word) + 1):
        ways = [(best[start][0] * pieces.get(word[start:end], 0.0), start) for start in range(end)]
        probability, start = max(ways, key=lambda way: (way[0], -way[1]))
        best.append((probability, [*best[start][1], word[start:end]]))
    return best[-1][1]


def expected_counts(words: Mapping[str, int], pieces: Probabilities) -> dict[str, float]:
    """The E step: how often each piece is used, over all ways to cut the words, weighted by their probability."""
    counts = dict.fromkeys(pieces, 0.0)
    for word, count in words.items():
        alpha, beta = forward(word, pieces), backward(word, pieces)
        for start in range(len(word)):
            for end in range(start + 1, len(word) + 1):
                if (piece := word[start:end]) in pieces:
                    # P(piece here | word) = alpha(start) p(piece) beta(end) / P(word)
                    counts[piece] += count * alpha[start] * pieces[piece] * beta[end] / alpha[-1]
    return counts


def em_step(words: Mapping[str, int], pieces: Probabilities) -> Probabilities:
    """One EM step: p = expected count / sum of expected counts. It never lowers the likelihood."""
    return _shares(expected_counts(words, pieces))


def log_likelihood(words: Mapping[str, int], pieces: Probabilities) -> float:
    """The sum over words of count * log P(word); minus infinity where a word cannot be written."""
    return sum(
        count * (math.log(total) if (total := forward(word, pieces)[-1]) > 0 else -math.inf)
        for word, count in words.items()
    )


def loss(words: Mapping[str, int], pieces: Probabilities, piece: str) -> float:
    """How much the log-likelihood of the text falls without `piece`, the others sharing its probability."""
    others = _shares({name: p for name, p in pieces.items() if name != piece})
    return log_likelihood(words, pieces) - log_likelihood(words, others)


def _with_characters(pieces: Probabilities) -> Probabilities:
    """No single character falls to nothing, or what pruning takes away could no longer be written."""
    return _shares({piece: max(p, LEAST) if len(piece) == 1 else p for piece, p in pieces.items()})


def _shares(counts: Mapping[str, float]) -> Probabilities:
    total = sum(counts.values())
    return {piece: count / total for piece, count in counts.items()}
