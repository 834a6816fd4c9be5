"""Batches for training without end, whose place can be saved and found again exactly."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from groundup.base.errors import DataError, UsageError
from groundup.data.mixture import Mixture
from groundup.data.order import Order, Sampling
from groundup.data.packing import Rows

Batch = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """How far a loader has come: rows in all, tokens in all, rows of each source. The same on every rank."""

    rows: int
    tokens: int
    drawn: tuple[int, ...]


@dataclass(frozen=True)
class _Plan:
    """A batch that is decided but not read: this rank's rows, and the place after the batch."""

    sources: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    after: Place


class Loader:
    """An endless iterator of batches.

    A batch is a dict: "ids" and "labels" (B, T) int64, "documents" (B, T) int64 unless the rows are a plain stream,
    "sources" a list of B strings that name the documents.

    - batch_size: rows of one batch over all ranks; can be changed between batches. Rank r of W gets rows r, r + W, r
      + 2W, ..., so all ranks together see the same batches whatever W is.
    - seed, sampling: see `Order`. An epoch's last batch is filled up from the next epoch.
    - workers: threads that read ahead. They change nothing but speed.

    `state_dict` holds the place after the last batch that was handed out, not after those read ahead.
    """

    def __init__(
        self,
        rows: Rows | Mixture,
        batch_size: int,
        *,
        seed: int = 0,
        sampling: Sampling = "shuffled",
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
    ):
        self.mixture = rows if isinstance(rows, Mixture) else Mixture({"data": rows})
        if isinstance(rows, Rows) and not len(rows):
            raise DataError("there are no rows to load")
        self.seed = seed
        self.sampling: Sampling = sampling
        self.rank, self.world_size = rank, world_size
        self._orders = [Order(rows, sampling, seed, number) for number, rows in enumerate(self.mixture.rows)]
        self._place = Place(0, 0, (0,) * len(self.mixture.rows))
        self._ahead: deque[tuple[_Plan, Future[Batch]]] = deque()
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="loader") if workers else None
        self.batch_size = batch_size

    @property
    def batch_size(self) -> int:
        """Rows of one batch over all ranks."""
        return self._batch_size

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        if size < 1 or size % self.world_size:
            raise UsageError(f"a batch of {size} rows cannot be shared equally by {self.world_size} processes")
        self._forget_ahead()
        self._batch_size = size

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._pool is None:
            plan = self._plan(self._place)
            batch = self._read(plan)
        else:
            self._read_ahead(self._pool)
            plan, reading = self._ahead.popleft()
            batch = reading.result()
        self._place = plan.after
        return batch

    def _read_ahead(self, pool: ThreadPoolExecutor) -> None:
        while len(self._ahead) < 2 * self._workers:
            plan = self._plan(self._ahead[-1][0].after if self._ahead else self._place)
            self._ahead.append((plan, pool.submit(self._read, plan)))

    def _forget_ahead(self) -> None:
        for _, reading in self._ahead:
            reading.cancel()
        self._ahead.clear()

    def _plan(self, place: Place) -> _Plan:
        """Decide the rows of the whole batch that follows `place`; keep this rank's."""
        size = self._batch_size
        sources = self.mixture.choose(np.arange(place.rows, place.rows + size), self.seed)
        starts, lengths = np.empty((2, size), dtype=np.int64)
        drawn = list(place.drawn)
        for number in np.unique(sources):
            here = sources == number
            ordinals = drawn[number] + np.arange(here.sum())
            starts[here], lengths[here] = self._orders[number].at(ordinals)
            drawn[number] += len(ordinals)
        after = Place(place.rows + size, place.tokens + int(lengths.sum()), tuple(drawn))
        own = slice(self.rank, None, self.world_size)
        return _Plan(sources[own], starts[own], lengths[own], after)

    def _read(self, plan: _Plan) -> Batch:
        return read_batch(self.mixture, plan.sources, plan.starts, plan.lengths)

    @property
    def tokens_seen(self) -> int:
        """Input tokens handed out so far over all ranks, padding not counted."""
        return self._place.tokens

    @property
    def rows_seen(self) -> int:
        """Rows handed out so far over all ranks."""
        return self._place.rows

    @property
    def epochs(self) -> dict[str, float]:
        """How often each source has been read so far."""
        drawn = zip(self.mixture.names, self.mixture.rows, self._place.drawn, strict=True)
        return {name: count / max(1.0, self._rows_in_epoch(rows)) for name, rows, count in drawn}

    @property
    def epoch(self) -> int:
        """Whole passes over the data; of a mixture: rows handed out over rows of all its sources."""
        return int(self._place.rows // max(1.0, self.rows_in_epoch))

    @property
    def rows_in_epoch(self) -> float:
        """Rows of one pass over the data; of a mixture: of all its sources."""
        return sum(map(self._rows_in_epoch, self.mixture.rows))

    def _rows_in_epoch(self, rows: Rows) -> float:
        return len(rows.tokens) / rows.context_length if self.sampling == "random" else len(rows)

    def state_dict(self) -> dict[str, Any]:
        """The place and what it depends on, as JSON values; the same on every rank and for every number of ranks and
        workers.
        """
        place = self._place
        return {
            "rows": place.rows,
            "tokens": place.tokens,
            "drawn": dict(zip(self.mixture.names, place.drawn, strict=True)),
            "epoch": self.epoch,
            "seed": self.seed,
            "sampling": self.sampling,
            "data": self.mixture.describe(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved place; a `DataError` that names what differs if the data or its order is not the same."""
        changes = _changes(state, self.state_dict())
        if changes:
            raise DataError(
                "cannot continue where the checkpoint stopped, the data is not the same: "
                + "; ".join(changes)
                + ". Restore it, or start from the checkpoint's weights without resuming"
            )
        self._forget_ahead()
        drawn = tuple(state["drawn"][name] for name in self.mixture.names)
        self._place = Place(state["rows"], state["tokens"], drawn)

    def close(self) -> None:
        """Stop the threads."""
        self._forget_ahead()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _changes(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    changes = [f"{key} was {saved[key]!r}, is {now[key]!r}" for key in ("seed", "sampling") if saved[key] != now[key]]
    old, new = saved["data"], now["data"]
    if list(old) != list(new):
        return [*changes, f"sources were {', '.join(old)}, are {', '.join(new)}"]
    for source in old:
        for key in sorted(old[source].keys() | new[source].keys()):
            before, after = old[source].get(key), new[source].get(key)
            if before != after:
                changes.append(f"{key.replace('_', ' ')} of {source} was {_short(before)}, is {_short(after)}")
    return changes


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) else str(value)


def read_batch(mixture: Mixture, sources: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> Batch:
    """The batch of the given rows, in their order, as torch tensors."""
    arrays: dict[str, np.ndarray] = {}
    names = [""] * len(sources)
    for number in np.unique(sources):
        rows, here = mixture.rows[number], np.flatnonzero(sources == number)
        for key, values in rows.read(starts[here], lengths[here]).items():
            if key not in arrays:
                arrays[key] = np.empty((len(sources), rows.context_length), dtype=np.int64)
            arrays[key][here] = values
        for place, name in zip(here, rows.sources(starts[here], lengths[here]), strict=True):
            names[place] = name
    return {key: torch.from_numpy(values) for key, values in arrays.items()} | {"sources": names}


def in_order(rows: Rows, batch_size: int, *, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
    """Every row once, in the order of the data, for evaluation; the last batch may be smaller.

    With several ranks rank r gets batches r, r + W, ...: sums over ranks then count each row once.
    """
    mixture = Mixture({"data": rows})
    for first in range(rank * batch_size, len(rows), batch_size * world_size):
        index = np.arange(first, min(first + batch_size, len(rows)))
        starts, lengths = rows.locate(index)
        yield read_batch(mixture, np.zeros(len(index), dtype=np.int64), starts, lengths)
