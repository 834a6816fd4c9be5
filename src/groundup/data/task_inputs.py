"""Tasks as texts that a language model can read (Radford et al. 2018, figure 1).

    classification    start text extract
    entailment        start premise delimiter hypothesis extract
    similarity        start A delimiter B extract   and   start B delimiter A extract
    multiple_choice   start context delimiter answer extract, for each answer

The three marks are token ids that the vocabulary gained (`groundup tokenizer extend`, `models/resize.py`). What is read
off the extract token is in `training/objectives/joint_fine_tuning.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from groundup.base.errors import DataError

IGNORED = -100
Ids = list[int]


@dataclass(frozen=True)
class TaskInputs:
    """Lays out examples that are given as ids.

    Attributes:
        start: id of the token that begins every text.
        delimiter: id of the token between two texts.
        extract: id of the token that ends every text, whose vector is judged.
        context_length: most ids in a row; longer texts are cut at their ends, all to the same share of the room.
    """

    start: int
    delimiter: int
    extract: int
    context_length: int = 512

    def classification(self, text: Ids) -> list[Ids]:
        """One row."""
        return [self._row(text)]

    def entailment(self, premise: Ids, hypothesis: Ids) -> list[Ids]:
        """One row."""
        return [self._row(premise, hypothesis)]

    def similarity(self, first: Ids, second: Ids) -> list[Ids]:
        """Two rows, one for each order: neither text is the first."""
        return [self._row(first, second), self._row(second, first)]

    def multiple_choice(self, context: Ids, answers: Sequence[Ids]) -> list[Ids]:
        """A row for each answer; the context is a passage, a question, or both one after the other."""
        if len(answers) < 2:
            raise DataError(f"a choice needs two answers or more, got {len(answers)}")
        return [self._row(context, answer) for answer in answers]

    def _row(self, *texts: Ids) -> Ids:
        room = (self.context_length - len(texts) - 1) // len(texts)
        if room < 1:
            raise DataError(f"context_length {self.context_length} leaves no room for {len(texts)} texts")
        row = [self.start]
        for place, text in enumerate(texts):
            row += [self.delimiter] * (place > 0) + list(text)[:room]
        return [*row, self.extract]


def task_batch(examples: Sequence[list[Ids]], targets: Sequence[int], pad: int = 0) -> dict[str, np.ndarray]:
    """Rows of examples, one under the other, padded on the right.

    Args:
        examples: rows of each, all with as many.
        targets: the class, or the number of the right answer, of each.
        pad: id of padding.

    Returns:
        ids, labels (the next id; -100 at the end and in padding), documents (1, and 0 for padding), (rows, T) int64;
        last (rows,): the place of the extract token; targets (rows,): that of the row's example.

    Raises:
        DataError: no examples, other numbers of them and of targets, or of rows in them.
    """
    counts = {len(rows) for rows in examples}
    if len(counts) != 1 or len(examples) != len(targets):
        raise DataError(
            f"{len(examples)} examples with {sorted(counts)} rows, and {len(targets)} targets: "
            "every example of a batch needs as many rows, and a target"
        )
    rows = [row for example in examples for row in example]
    lengths = np.array([len(row) for row in rows])
    ids = np.full((len(rows), lengths.max()), pad, dtype=np.int64)
    for row, values in zip(ids, rows, strict=True):
        row[: len(values)] = values
    place = np.arange(ids.shape[1])
    labels = np.where(place[:-1] < lengths[:, None] - 1, ids[:, 1:], IGNORED)
    return {
        "ids": ids,
        "labels": np.concatenate((labels, np.full((len(rows), 1), IGNORED)), axis=1),
        "documents": (place < lengths[:, None]).astype(np.int64),
        "last": lengths - 1,
        "targets": np.repeat(np.asarray(targets, dtype=np.int64), counts.pop()),
    }
