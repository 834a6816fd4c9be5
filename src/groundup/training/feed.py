"""From an iterable of batches to the rows of each step, with a position that can be saved.

The loader's batch size and the step's need not agree: a step takes as many rows as it wants (batch ramp-up), and
what is left of the loader's batch is used by the next one. The position is the loader's state before the batch in
use, and the number of rows already used of it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from groundup.base.errors import DataError
from groundup.training.objectives.cross_entropy import IGNORED
from groundup.training.objectives.objective import Batch


def num_rows(batch: Batch) -> int:
    """The rows of a batch."""
    return next(len(value) for value in batch.values() if isinstance(value, Tensor))


def take_rows(batch: Batch, start: int, stop: int) -> Batch:
    """Rows start..stop of every tensor and list."""
    return {name: value[start:stop] for name, value in batch.items()}


def join_rows(parts: list[Batch]) -> Batch:
    """Batches of one width, one under the other."""
    if len(parts) == 1:
        return parts[0]
    widths = {tuple(value.shape[1:]) for part in parts if (value := part.get("ids")) is not None}
    if len(widths) > 1 or any(part.keys() != parts[0].keys() for part in parts):
        raise DataError(
            f"cannot join batches of different widths {sorted(widths)}: make the loader's batch as large as the step's"
        )
    return {
        name: torch.cat([part[name] for part in parts])
        if isinstance(value, Tensor)
        else [item for part in parts for item in part[name]]
        for name, value in parts[0].items()
    }


class Feed:
    """Rows on demand.

    Args:
        data: an iterable of batches. With `state_dict`/`load_state_dict` it is a loader that keeps its own position and
            epoch, and with `batch_size` it is told how many rows to give; a plain iterable (a list) is read again for
            each epoch, and skipped through when resuming.
        vocab_size: ids must be below it; None leaves them unchecked.
    """

    def __init__(self, data: Iterable[Batch], vocab_size: int | None = None):
        self.data = data
        self.vocab_size = vocab_size
        self.shards = int(getattr(data, "world_size", 1))
        self._keeps_position = hasattr(data, "state_dict")
        self._iterator: Iterator[Batch] | None = None
        self._batch: Batch | None = None
        self._used = 0
        self._before: Any = self._loader_state()
        self._epoch = self._batches = 0

    @property
    def epoch(self) -> int:
        """Passes over the data that are complete."""
        return int(self.data.epoch) if hasattr(self.data, "epoch") else self._epoch  # type: ignore[attr-defined]

    @property
    def rows_in_epoch(self) -> float | None:
        """Rows of one pass, where the data knows: a loader's `rows_in_epoch`, or a list of batches."""
        if hasattr(self.data, "rows_in_epoch"):
            return float(self.data.rows_in_epoch)  # type: ignore[attr-defined]
        return float(sum(map(num_rows, self.data))) if isinstance(self.data, Sequence) else None

    def width(self, rows: int) -> int:
        """Positions of a row, from the first batch, which is still the next one afterwards."""
        position = self.state_dict()
        if self._batch is None:
            self._set_batch_size(rows)
            self._pull()
        assert self._batch is not None
        width = self._batch["ids"].shape[1]
        if self._keeps_position:
            self.load_state_dict(position)
        return width

    def _set_batch_size(self, rows: int) -> None:
        if hasattr(self.data, "batch_size") and self.data.batch_size != rows:  # type: ignore[attr-defined]
            self.data.batch_size = rows  # type: ignore[attr-defined]

    def take(self, rows: int) -> Batch:
        """The next `rows` rows over all ranks: this rank's share where the loader shards, all of them otherwise.

        Raises:
            DataError: no data, no trained token, or an id outside the vocabulary.
        """
        self._set_batch_size(rows)
        rows //= self.shards
        parts: list[Batch] = []
        while rows > 0:
            if self._batch is None or self._used == num_rows(self._batch):
                self._pull()
            assert self._batch is not None
            stop = min(self._used + rows, num_rows(self._batch))
            parts.append(take_rows(self._batch, self._used, stop))
            rows -= stop - self._used
            self._used = stop
        batch = join_rows(parts)
        check(batch, self.vocab_size)
        return batch

    def _pull(self) -> None:
        self._before, self._used = self._loader_state(), 0
        if self._iterator is None:
            self._iterator = iter(self.data)
        for _ in range(2):
            batch = next(self._iterator, None)
            if batch is not None:
                self._batch = batch
                self._batches += 1
                return
            self._epoch += 1
            self._batches = 0
            self._iterator = iter(self.data)
        raise DataError("the training data is empty: no document is long enough to make a batch")

    def _loader_state(self) -> Any:
        return self.data.state_dict() if self._keeps_position else None  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        """The position, JSON-able."""
        whole = self._batch is None or self._used == num_rows(self._batch)
        loader = self._loader_state() if whole else self._before
        return {
            "loader": loader,
            "used": 0 if whole else self._used,
            "epoch": self._epoch,
            "batches": self._batches - (not whole),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position."""
        self._iterator = self._batch = None
        self._epoch = state["epoch"]
        if self._keeps_position:
            self.data.load_state_dict(state["loader"])  # type: ignore[attr-defined]
            self._batches = state["batches"]
        else:
            self._iterator, self._batches = iter(self.data), 0
            for _ in range(state["batches"]):
                next(self._iterator)
                self._batches += 1
        if state["used"]:
            self._pull()
            self._used = state["used"]


def check(batch: Batch, vocab_size: int | None) -> None:
    """`DataError` when nothing in the batch is trained, or an id is outside the vocabulary; the rows are named."""
    ids, labels = batch.get("ids"), batch.get("labels")
    if labels is not None and not bool((labels != IGNORED).any()):
        raise DataError(
            f"no token of a batch is trained: all labels of its {len(labels)} rows are {IGNORED}. "
            f"Look at the mask of {_names(batch, range(len(labels)))}"
        )
    for what, values in (("ids", ids), ("labels", labels)):
        if vocab_size is None or values is None or values.is_floating_point():
            continue
        wrong = (values >= vocab_size) | (values < 0) & (values != IGNORED)
        if what == "ids":
            wrong |= values < 0
        if bool(wrong.any()):
            rows = wrong.flatten(1).any(1).nonzero()[:, 0].tolist()
            raise DataError(
                f"{what} hold {int(values[wrong][0])}, outside the model's vocabulary of {vocab_size:,}, in "
                f"{_names(batch, rows)}: was the data made with another tokenizer?"
            )


def _names(batch: Batch, rows: Iterable[int]) -> str:
    """'row 3 (doc-17), row 5 (doc-9)': at most eight."""
    rows = list(rows)
    sources = batch.get("sources")
    shown = [f"row {row}" + (f" ({sources[row]})" if sources else "") for row in rows[:8]]
    return ", ".join(shown) + (f" and {len(rows) - 8} more" if len(rows) > 8 else "")
