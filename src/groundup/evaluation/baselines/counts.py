"""The two simplest: all symbols alike, and each as often as it was seen."""

import math
from collections.abc import Sequence
from typing import Self

import numpy as np

from groundup.evaluation.baselines.baseline import NotFitted, Symbols
from groundup.models.ngrams.counts import symbols


class Uniform:
    """Every symbol costs log2(vocabulary) bits: 8 for bytes."""

    name = "uniform"

    def __init__(self, vocabulary: int = 256):
        self.vocabulary = vocabulary

    def fit(self, documents: Sequence[Symbols]) -> Self:
        """There is nothing to learn."""
        return self

    def bits(self, document: Symbols) -> float:
        """N log2 V."""
        return len(document) * math.log2(self.vocabulary)


class Unigram:
    """p(w) = (c(w) + 1/2) / (N + V/2): frequencies, with half a count for what was never seen."""

    name = "unigram"

    def __init__(self, vocabulary: int = 256):
        self.vocabulary = vocabulary
        self._cost: np.ndarray | None = None

    def fit(self, documents: Sequence[Symbols]) -> Self:
        """Count the symbols."""
        counts = np.full(self.vocabulary, 0.5)
        for document in documents:
            counts += np.bincount(symbols(document), minlength=self.vocabulary)
        self._cost = -np.log2(counts / counts.sum())  # (V,)
        return self

    def bits(self, document: Symbols) -> float:
        """The sum of -log2 p(w)."""
        if self._cost is None:
            raise NotFitted(self.name)
        return float(self._cost[symbols(document)].sum())
