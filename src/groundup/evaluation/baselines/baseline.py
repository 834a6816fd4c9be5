"""What all baselines have in common."""

from collections.abc import Sequence
from typing import Protocol

from groundup.base.errors import UsageError
from groundup.models.ngrams.counts import Symbols as Symbols


class Choices(Protocol):
    """A multiple-choice question, such as `data.builtin.stories.Question`."""

    @property
    def context(self) -> str:
        """The text that holds the answer."""
        ...

    @property
    def prompt(self) -> str:
        """What is asked."""
        ...

    @property
    def stem(self) -> str:
        """Context and prompt as a text that a choice continues."""
        ...

    @property
    def choices(self) -> Sequence[str]:
        """The possible answers."""
        ...

    @property
    def answer(self) -> int:
        """Which of them is right."""
        ...


class Baseline(Protocol):
    """A model of text that is fitted by counting."""

    name: str

    def fit(self, documents: Sequence[Symbols]) -> "Baseline":
        """Learn from documents; returns itself."""
        ...

    def bits(self, document: Symbols) -> float:
        """The bits that this document costs."""
        ...


class NotFitted(UsageError):
    """A baseline was asked before it was fitted."""

    def __init__(self, name: str):
        super().__init__(f"the {name} baseline has seen no text: call fit(documents) first")


def bits_per_byte(baseline: Baseline, documents: Sequence[Symbols], total_bytes: int | None = None) -> float:
    """Bits over bytes of all documents together. Token ids need `total_bytes`, the size of their text in UTF-8."""
    if total_bytes is None:
        if not all(isinstance(document, bytes) for document in documents):
            raise UsageError("bits_per_byte of token ids needs `total_bytes`, the size of the text in UTF-8")
        total_bytes = sum(map(len, documents))
    if total_bytes == 0:
        raise UsageError("bits_per_byte needs at least one byte of text")
    return sum(baseline.bits(document) for document in documents) / total_bytes


def accuracy(answerer, questions: Sequence[Choices]) -> float:
    """The share of questions that `answerer.answer(question)` gets right."""
    if not questions:
        raise UsageError("accuracy needs at least one question")
    return sum(answerer.answer(question) == question.answer for question in questions) / len(questions)
