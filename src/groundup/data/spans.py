"""Which spans of a text are taken out of it, for a model to write again (Du et al. 2022, GLM, sections 2.1 and 2.2).

    short_spans       many, with lengths of a Poisson distribution, until a share of the text is covered     words
    sentence_spans    whole sentences, until a share of the text is covered                              sentences
    last_span         one, from anywhere to the end                                                      documents

Spans are (first, after the last), from left to right. All randomness is `rng`'s.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np

Span = tuple[int, int]

SENTENCE_ENDS = ".?!;:…。？！；：\n"  # noqa: RUF001  (Chinese ones too)
"""A token that holds one of these ends a sentence, as in the authors' code."""


def short_spans(
    length: int, rng: np.random.Generator, *, share: float = 0.15, mean: float = 3.0, longest: int = 39
) -> list[Span]:
    """Spans that cover at least a share of a text, and one token at least; one that no longer fits is cut.

    Between two of them a token is left, and one of the text remains. Every such way to place their gaps is possible.

    Args:
        length: tokens of the text, 1 or more.
        rng: draws lengths and places.
        share: of the text, rounded down.
        mean: of the Poisson distribution, whose lengths of 0 and beyond `longest` are drawn again.
        longest: most tokens of a span.
    """
    lengths: list[int] = []
    while sum(lengths) < max(1, int(share * length)):
        left = max(len(lengths), int(length > 1))  # the tokens between spans; or one, of a text that has more
        room = length - sum(lengths) - left
        if room < 1:
            break
        lengths.append(min(_poisson(rng, mean, longest), room))
    rng.shuffle(lengths)  # the one that reached the share is longer than most, wherever it stands
    free = length - sum(lengths) - (len(lengths) - 1)
    gaps = np.sort(rng.integers(0, free + 1, len(lengths)))
    starts = gaps + np.cumsum([0, *(n + 1 for n in lengths[:-1])])
    return [(int(start), int(start) + n) for start, n in zip(starts, lengths, strict=True)]


def sentence_spans(ends: Sequence[bool], rng: np.random.Generator, *, share: float = 0.15) -> list[Span]:
    """Sentences, chosen at random until they cover a share of the text; the text's first token stays where one sentence
    is all of it.

    Args:
        ends: for each token whether a sentence ends with it; the last one always does.
        rng: chooses.
        share: of the text, rounded down.
    """
    stops = [place + 1 for place, end in enumerate(ends) if end or place == len(ends) - 1]
    sentences = list(zip([0, *stops[:-1]], stops, strict=True))
    if len(sentences) == 1 and len(ends) > 1:
        return [(1, len(ends))]
    chosen: list[Span] = []
    for place in rng.permutation(len(sentences)):
        chosen.append(sentences[place])
        if sum(last - first for first, last in chosen) >= int(share * len(ends)):
            break
    return sorted(chosen)


def last_span(length: int, rng: np.random.Generator, *, least: float = 0.5, most: float = 1.0) -> list[Span]:
    """The end of a text, a share of it that is drawn uniformly; one token at least.

    Args:
        length: tokens of the text, 1 or more.
        rng: draws the share.
        least: smallest share.
        most: largest share.
    """
    tokens = max(1, round(rng.uniform(least, most) * length))
    return [(length - tokens, length)]


def _poisson(rng: np.random.Generator, mean: float, longest: int) -> int:
    return 1 + int(np.searchsorted(_cumulative(mean, longest), rng.random(), side="right"))


@functools.lru_cache(maxsize=8)
def _cumulative(mean: float, longest: int) -> np.ndarray:
    """Probabilities of lengths up to 1, 2, ... longest - 1 (that of all is 1)."""
    # in logarithms: mean^n / n! overflows for long spans
    weights = np.exp([n * math.log(mean) - math.lgamma(n + 1) for n in range(1, longest + 1)])
    return (np.cumsum(weights) / weights.sum())[:-1]
