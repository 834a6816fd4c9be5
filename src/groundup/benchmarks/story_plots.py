"""A task for adapters: which of sixteen scenes does a story end with?

The stories of the built-in corpus are chains of scenes (a theft, a feast, a quarrel, ...). The model reads a story and
says the letter of its last scene. Stories of the split `test` come from worlds, with names, sentence patterns and pairs
of scenes that the training split never shows: they are the measure out of distribution.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from groundup.data.builtin.stories import StoriesConfig, documents
from groundup.data.builtin.stories.items import Mix

LETTERS = "ABCDEFGHIJKLMNOP"
QUESTION = "\nThe last scene is"
IGNORED = -100
ONLY_STORIES = Mix(story=1, qa=0, instruction=0, arithmetic=0, preference=0)


class Example(NamedTuple):
    """A story with the question, and the id of the letter that answers it."""

    ids: list[int]
    answer: int


def examples(count: int, split: str, seed: int, tokenizer: Any, longest: int) -> list[Example]:
    """The first `count` stories of a split; the beginning of those with more than `longest` ids is left out."""
    question = tokenizer.encode(QUESTION)
    letters = [tokenizer.encode(" " + letter)[-1] for letter in LETTERS]
    settings = StoriesConfig(split=split, seed=seed, documents=count, mix=ONLY_STORIES)  # type: ignore[arg-type]
    found = []
    for document in documents(settings):
        story = tokenizer.encode(document.text)[-(longest - len(question)) :]
        found.append(Example([*story, *question], letters[document.meta["plot"][-1]]))
    return found


def letter_ids(tokenizer: Any) -> Tensor:
    """The ids of the sixteen answers, (16,) int64."""
    return torch.tensor([tokenizer.encode(" " + letter)[-1] for letter in LETTERS])


def batch_of(chosen: Sequence[Example]) -> dict[str, Tensor]:
    """Rows padded on the right: ids, labels (the answer at the last token, -100 elsewhere), documents, all (B, T)."""
    width = max(len(example.ids) for example in chosen)
    ids, labels, real = (torch.full((len(chosen), width), fill) for fill in (0, IGNORED, 0))
    for row, example in enumerate(chosen):
        length = len(example.ids)
        ids[row, :length] = torch.tensor(example.ids)
        labels[row, length - 1] = example.answer
        real[row, :length] = 1
    return {"ids": ids, "labels": labels, "documents": real}


def batches(given: Sequence[Example], size: int, seed: int) -> Iterator[dict[str, Tensor]]:
    """Shuffled batches, epoch after epoch, without an end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(given), generator=generator).tolist()
        for start in range(0, len(order) - size + 1, size):
            yield batch_of([given[number] for number in order[start : start + size]])


@torch.no_grad()
def accuracy(model: Any, given: Sequence[Example], letters: Tensor, size: int = 32) -> float:
    """The share of stories whose letter has the highest score of the sixteen."""
    right = 0
    for start in range(0, len(given), size):
        chosen = given[start : start + size]
        batch = batch_of(chosen)
        ends = (batch["labels"] != IGNORED).int().argmax(1)
        rows = torch.arange(len(chosen))
        logits = model(
            batch["ids"],
            documents=batch["documents"],
            head=lambda hidden, head, rows=rows, ends=ends: head(hidden[rows, ends]),
        )
        answers = torch.tensor([example.answer for example in chosen])
        right += int((letters[logits[:, letters].argmax(-1)] == answers).sum())
    return right / len(given)
