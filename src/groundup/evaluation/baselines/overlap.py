"""Two readers that do not understand: they look for words in common.

Words weigh log((1 + N) / (1 + n)), N texts seen and n of them with the word (tf-idf: Sparck Jones 1972); likeness is
the cosine of two texts' weighted words.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Self

from groundup.evaluation.baselines.baseline import Choices, NotFitted

_WORDS = re.compile(r"\w+")
_SENTENCES = re.compile(r'(?<=[.!?])"?\s+')


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return _WORDS.findall(text.lower())


class NearestSentence:
    """The choice that stands in the sentence of the context that is most like the question; a tie: the later one.

    Choices that are no part of the sentence are weighed by the words that they share with it, then by where in the
    context they were last named.
    """

    name = "nearest sentence"

    def answer(self, question: Choices) -> int:
        """The index of a choice."""
        sentences = [words(s) for s in _SENTENCES.split(question.context)]
        weights = _weights(sentences)
        asked = words(question.prompt)
        order = sorted(range(len(sentences)), key=lambda i: (_cosine(asked, sentences[i], weights), i), reverse=True)
        for i in order:
            shared = [
                sum(weights.get(w, 0.0) for w in set(words(choice)) & set(sentences[i])) for choice in question.choices
            ]
            if max(shared) > 0:
                return shared.index(max(shared))
        return 0


class NearestQuestion:
    """Gives the choice most like the answer of the training question (with its context) that is most like this one."""

    name = "nearest question"

    def __init__(self) -> None:
        self._index: dict[str, list[tuple[int, float]]] = {}
        self._weights: dict[str, float] = {}
        self._answers: list[list[str]] = []

    def fit(self, questions: Sequence[Choices]) -> Self:
        """Index the questions by their words."""
        texts = [words(q.stem) for q in questions]
        self._weights = _weights(texts)
        self._answers = [words(q.choices[q.answer]) for q in questions]
        index = defaultdict(list)
        for i, text in enumerate(texts):
            vector = _vector(text, self._weights)
            for word, value in vector.items():
                index[word].append((i, value))
        self._index = dict(index)
        return self

    def answer(self, question: Choices) -> int:
        """The index of a choice."""
        if not self._answers:
            raise NotFitted(self.name)
        scores: dict[int, float] = defaultdict(float)
        for word, value in _vector(words(question.stem), self._weights).items():
            for i, other in self._index.get(word, ()):
                scores[i] += value * other
        if not scores:
            return 0
        nearest = set(self._answers[max(scores, key=lambda i: scores[i])])
        shared = [len(nearest & set(words(c))) / (len(nearest | set(words(c))) or 1) for c in question.choices]
        return shared.index(max(shared))


def _weights(texts: Sequence[Sequence[str]]) -> dict[str, float]:
    seen = Counter(word for text in texts for word in set(text))
    return {word: math.log((1 + len(texts)) / (1 + n)) for word, n in seen.items()}


def _vector(text: Sequence[str], weights: dict[str, float]) -> dict[str, float]:
    """Weighted words of unit length."""
    values = {word: n * weights[word] for word, n in Counter(text).items() if weights.get(word)}
    length = math.sqrt(sum(v * v for v in values.values())) or 1.0
    return {word: v / length for word, v in values.items()}


def _cosine(one: Sequence[str], other: Sequence[str], weights: dict[str, float]) -> float:
    a, b = _vector(one, weights), _vector(other, weights)
    return sum(value * b[word] for word, value in a.items() if word in b)
