"""Task: a set of items with known answers, and how an answer is scored.

An item says which continuations are to be scored (`requests`) and turns their likelihoods into named scores (`score`).
So a new kind of item needs no change in the harness.
"""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from groundup.base.errors import UsageError
from groundup.evaluation.likelihood import Likelihood
from groundup.evaluation.multiple_choice import NEUTRAL_CONTEXT, predictions

Request = tuple[str, str]


class Item(Protocol):
    """One question."""

    def requests(self) -> list[Request]:
        """(context, continuation) pairs whose likelihood is needed."""
        ...

    def score(self, likelihoods: Sequence[Likelihood]) -> dict[str, float]:
        """Named scores, from the likelihoods of the requests in order."""
        ...

    def example(self) -> str:
        """The item with its right answer, as text: an example for few-shot prompts."""
        ...

    def after(self, prefix: str) -> "Item":
        """The same item with `prefix` before its context."""
        ...


@dataclass(frozen=True)
class MultipleChoice:
    """Choose the continuation of `context`: scored by three rules.

    Attributes:
        context: the question, up to where the answer begins.
        choices: the texts that may follow, each with the space it needs.
        answer: index of the right one.
    """

    context: str
    choices: tuple[str, ...]
    answer: int

    def requests(self) -> list[Request]:
        """Each choice after the question, then after the neutral context."""
        return [(self.context, c) for c in self.choices] + [(NEUTRAL_CONTEXT, c) for c in self.choices]

    def score(self, likelihoods: Sequence[Likelihood]) -> dict[str, float]:
        """accuracy_<rule>: 1 where the rule chooses the answer."""
        count = len(self.choices)
        chosen = predictions(likelihoods[:count], likelihoods[count:])
        return {f"accuracy_{rule}": float(choice == self.answer) for rule, choice in chosen.items()}

    def example(self) -> str:
        """The question and the right choice."""
        return self.context + self.choices[self.answer]

    def after(self, prefix: str) -> "MultipleChoice":
        """The same item with `prefix` before its context."""
        return replace(self, context=prefix + self.context)


@dataclass(frozen=True)
class Cloze:
    """Fill in the end of `context`, as in LAMBADA (Paperno et al. 2016).

    Right where every token of `answer` is the model's first choice.
    """

    context: str
    answer: str

    def requests(self) -> list[Request]:
        """The answer after its context."""
        return [(self.context, self.answer)]

    def score(self, likelihoods: Sequence[Likelihood]) -> dict[str, float]:
        """accuracy: greedy text would be the answer; loss: -log p(answer | context)."""
        return {"accuracy": float(likelihoods[0].greedy), "loss": -likelihoods[0].logprob}

    def example(self) -> str:
        """Context and answer."""
        return self.context + self.answer

    def after(self, prefix: str) -> "Cloze":
        """The same item with `prefix` before its context."""
        return replace(self, context=prefix + self.context)


class Task(Protocol):
    """Items under a name; the version changes when scores can no longer be compared."""

    @property
    def name(self) -> str:
        """For reports."""
        ...

    @property
    def version(self) -> int:
        """Changes when the items or their scoring do."""
        ...

    def __len__(self) -> int: ...

    def item(self, i: int) -> Item:
        """Item i, the same at every call."""
        ...

    def score(self, i: int, likelihoods: Sequence[Likelihood]) -> dict[str, float]:
        """Named scores of item i."""
        ...


@dataclass(frozen=True)
class ItemTask:
    """A Task from a list of items."""

    name: str
    items: Sequence[Item]
    version: int = 1

    def __len__(self) -> int:
        return len(self.items)

    def item(self, i: int) -> Item:
        """Item i."""
        return self.items[i]

    def score(self, i: int, likelihoods: Sequence[Likelihood]) -> dict[str, float]:
        """Named scores of item i."""
        return self.items[i].score(likelihoods)


@dataclass(frozen=True)
class TextTask:
    """Documents whose perplexity and bits per byte are measured."""

    name: str
    texts: Sequence[str]
    version: int = 1

    def __len__(self) -> int:
        return len(self.texts)


def with_shots(task: Task, shots: int, seed: int, separator: str = "\n\n") -> Task:
    """The task with `shots` other items, answered, before each item; drawn by seed and item, never the item itself."""
    if shots == 0:
        return task
    if shots >= len(task):
        raise UsageError(f"{shots} examples were asked for, but task {task.name} has {len(task)} items")
    items = []
    for i in range(len(task)):
        others = random.Random(f"{seed}/{i}").sample([j for j in range(len(task)) if j != i], shots)
        prefix = "".join(task.item(j).example() + separator for j in others)
        items.append(task.item(i).after(prefix))
    return ItemTask(task.name, items, task.version)


def fingerprint(values: object) -> str:
    """16 hexadecimal digits of the SHA-256 of a JSON-able value."""
    return hashlib.sha256(json.dumps(values, ensure_ascii=False).encode()).hexdigest()[:16]
