"""The best path through what each word may have been.

    typed     thw      kign     is
              thw      king     is
              the      kin      his           P(the) P(king | the) P(is | the king)  x  P(thw | the) P(kign | king) ...
              thaw     kings    as

Dynamic programming (Viterbi 1967) over the last n - 1 words finds the best sentence without trying all.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from groundup.base.errors import UsageError
from groundup.generation.noisy_channel.edits import EditChannel
from groundup.models.configs.ngram import ModifiedKneserNey
from groundup.models.ngrams.lookup import log2_probabilities, next_log2
from groundup.models.ngrams.smoothing import Tables, smooth

WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")
UNKNOWN = 0


def sentences(text: str) -> list[list[str]]:
    """The words of each line or sentence of a text, in lower case."""
    found = [WORD.findall(part) for part in re.split(r"[\n.!?;:]+", text.lower())]
    return [words for words in found if words]


@dataclass(frozen=True)
class Decoded:
    """A sentence that was meant.

    Attributes:
        words: the sentence.
        bits: -log2 of P(words) P(typed | words).
        candidates: how many words each typed one may have been.
    """

    words: list[str]
    bits: float
    candidates: list[int]


class Corrector:
    """A language model of words and a channel.

    The language model is a modified Kneser-Ney n-gram model; words seen once stand for those never seen, whose spelling
    a model of their letters weighs.

    Args:
        text: sentences of words, to learn the language from.
        channel: how words are garbled.
        order: n of the language model; 1 knows words by frequency alone.
        beam: most histories that are kept at each word; None keeps all, which is exact.
    """

    def __init__(self, text: Sequence[Sequence[str]], channel: EditChannel, order: int = 3, beam: int | None = 32):
        if beam is not None and beam < 1:
            raise UsageError(f"a beam holds at least one history, not {beam}")
        counts = Counter(word for words in text for word in words)
        if not counts:
            raise UsageError("there is no word to learn from")
        self.channel, self.order, self.beam = channel, order, beam
        known = sorted(word for word, n in counts.items() if n > 1)
        self.number = {word: i for i, word in enumerate(known, start=1)}
        documents = [[self.number.get(word, UNKNOWN) for word in words] for words in text]
        self.language: Tables = smooth(documents, order, len(known) + 1, ModifiedKneserNey())
        rare = [word for word, n in counts.items() if n == 1] or known
        self.spelling: Tables = smooth([f"{word}\n".encode() for word in rare], 4, 256, ModifiedKneserNey())

    def candidates(self, typed: str) -> list[tuple[str, float]]:
        """Words that `typed` may have been, with log2 P(typed | word): itself, and known words a single edit away."""
        words = [typed, *sorted(self.channel.sources(typed) & self.number.keys())]
        found = [(word, self.channel.probability(typed, word)) for word in words]
        return [(word, math.log2(p)) for word, p in found if p > 0]

    def decode(self, typed: Sequence[str]) -> Decoded:
        """The likeliest sentence that came through as `typed`."""
        # history of the last n - 1 numbers -> (log2 probability so far, words so far)
        paths: dict[tuple[int, ...], tuple[float, tuple[str, ...]]] = {(): (0.0, ())}
        sizes = []
        for word in typed:
            choices = self.candidates(word)
            sizes.append(len(choices))
            paths = self._extended(paths, choices)
        score, words = max(paths.values(), key=lambda path: path[0])
        return Decoded(list(words), -score, sizes)

    def _extended(
        self, paths: dict[tuple[int, ...], tuple[float, tuple[str, ...]]], choices: list[tuple[str, float]]
    ) -> dict[tuple[int, ...], tuple[float, tuple[str, ...]]]:
        numbers = np.array([self.number.get(word, UNKNOWN) for word, _ in choices])
        own = np.array([channel + self._spelt(word) for word, channel in choices])
        best: dict[tuple[int, ...], tuple[float, tuple[str, ...]]] = {}
        for history, (score, words) in paths.items():
            totals = score + own + next_log2(self.language, history, numbers)
            for (word, _), number, total in zip(choices, numbers.tolist(), totals.tolist(), strict=True):
                kept = (*history, number)[-(self.order - 1) :] if self.order > 1 else ()
                if kept not in best or total > best[kept][0]:
                    best[kept] = (total, (*words, word))
        if self.beam is not None and len(best) > self.beam:
            best = dict(sorted(best.items(), key=lambda item: -item[1][0])[: self.beam])
        return best

    def _spelt(self, word: str) -> float:
        """log2 of the spelling of a word that the language model does not know; 0 for one that it knows."""
        if word in self.number:
            return 0.0
        return float(log2_probabilities(self.spelling, f"{word}\n".encode()).sum())

    def log2(self, words: Sequence[str], typed: Sequence[str]) -> float:
        """log2 of P(words) P(typed | words), a word after the other."""
        numbers = [self.number.get(word, UNKNOWN) for word in words]
        channel = [self.channel.probability(t, w) for t, w in zip(typed, words, strict=True)]
        said = log2_probabilities(self.language, numbers).sum() + sum(map(self._spelt, words))
        return float(said) + sum(math.log2(p) if p > 0 else -math.inf for p in channel)


def judged(meant: Sequence[str], typed: Sequence[str], decoded: Sequence[str]) -> dict[str, float]:
    """What a correction is worth: words right before and after, garbled ones mended, right ones spoilt (shares)."""
    rows = list(zip(meant, typed, decoded, strict=True))
    garbled, right = [r for r in rows if r[0] != r[1]], [r for r in rows if r[0] == r[1]]
    return {
        "words": len(rows),
        "right_before": len(right) / max(1, len(rows)),
        "right_after": sum(m == d for m, _, d in rows) / max(1, len(rows)),
        "mended": sum(m == d for m, _, d in garbled) / max(1, len(garbled)),
        "spoilt": sum(m != d for m, _, d in right) / max(1, len(right)),
    }
