"""Interpolated modified Kneser-Ney n-grams over bytes or token ids, as a baseline.

The counting and the formulas are those of `models/ngrams`.
"""

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np

from groundup.base.errors import UsageError
from groundup.evaluation.baselines.baseline import Choices, NotFitted, Symbols
from groundup.evaluation.baselines.counts import symbols
from groundup.models.configs.ngram import ModifiedKneserNey
from groundup.models.ngrams.lookup import log2_probabilities
from groundup.models.ngrams.smoothing import Tables, smooth


class KneserNey:
    """An n-gram model. `vocabulary` is the number of symbols, 256 for bytes."""

    def __init__(self, order: int = 5, vocabulary: int = 256):
        if order < 1 or vocabulary < 1:
            raise UsageError(f"an n-gram model needs order >= 1 and vocabulary >= 1, got {order} and {vocabulary}")
        self.order, self.vocabulary = order, vocabulary
        self.name = f"Kneser-Ney {order}-gram"
        self.tables: Tables | None = None

    def fit(self, documents: Sequence[Symbols]) -> Self:
        """Count all n-grams of the documents."""
        self.tables = smooth(documents, self.order, self.vocabulary, ModifiedKneserNey())
        return self

    def log2_probabilities(self, document: Symbols) -> np.ndarray:
        """log2 p of each symbol of a document given those before it, (n,) float64."""
        if self.tables is None:
            raise NotFitted(self.name)
        return log2_probabilities(self.tables, document)

    def probabilities(self, context: Symbols) -> np.ndarray:
        """P of every symbol after `context`, (V,) float64; their sum is 1."""
        history = symbols(context)[max(0, len(context) - self.order + 1) :].tolist()
        return np.array([2.0 ** self.log2_probabilities([*history, w])[-1] for w in range(self.vocabulary)])

    def bits(self, document: Symbols) -> float:
        """The sum of -log2 p."""
        return -float(self.log2_probabilities(document).sum())

    def answer(self, question: Choices, encode: Callable[[str], Symbols] = str.encode) -> int:
        """The choice that is most probable after the question."""
        # A choice is weighed behind the end of the stem: what lies further back is out of the model's sight.
        stem = symbols(encode(question.stem))
        head = stem[max(0, len(stem) - self.order + 1) :]
        scores = []
        for choice in question.choices:
            text = np.concatenate([head, symbols(encode(f" {choice}\n"))])
            scores.append(self.log2_probabilities(text)[len(head) :].sum())
        return int(np.argmax(scores))
