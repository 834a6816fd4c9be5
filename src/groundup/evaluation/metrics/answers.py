"""Exact match, F1 and accuracy of short answers (SQuAD: Rajpurkar et al. 2016)."""

import re
import string
from collections import Counter
from collections.abc import Sequence

from groundup.evaluation.metrics.statistics import Estimate, mean

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """Lower case, no punctuation, no English articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answers: str | Sequence[str]) -> float:
    """1 where the normalised prediction is one of the normalised answers."""
    return float(normalize(prediction) in {normalize(answer) for answer in _listed(answers)})


def f1(prediction: str, answers: str | Sequence[str]) -> float:
    """Harmonic mean of precision and recall of words, the best over the answers.

    Where prediction or answer has no words, 1 if both have none, else 0.
    """
    return max(_f1(normalize(prediction).split(), normalize(answer).split()) for answer in _listed(answers))


def accuracy(predictions: Sequence[object], answers: Sequence[object]) -> Estimate:
    """Share of predictions that equal their answer, with its standard error."""
    return mean([float(prediction == answer) for prediction, answer in zip(predictions, answers, strict=True)])


def _f1(prediction: list[str], answer: list[str]) -> float:
    if not prediction or not answer:
        return float(prediction == answer)
    common = sum((Counter(prediction) & Counter(answer)).values())
    # 2 P R / (P + R) with P = common / |prediction| and R = common / |answer|
    return 2 * common / (len(prediction) + len(answer))


def _listed(answers: str | Sequence[str]) -> Sequence[str]:
    return [answers] if isinstance(answers, str) else answers
