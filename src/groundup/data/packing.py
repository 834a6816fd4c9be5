"""From documents to rows of equal length: inputs, labels and which token belongs to which document.

With tokens t_0 t_1 ... and a row that starts at s, position j reads t_{s+j} and its label is t_{s+j+1}.

    stream    | the cat sat E the dog | ran E a bird flew E |  documents follow each other, cut anywhere (GPT-3)
    documents | 1   1   1   1 2   2   | 1   1 2 2    2    2 |  the same; attention and labels stay in a document
    pad       | the cat sat E . . . . | the dog ran E . . . |  each row is one document, or a piece of a long one

Every document ends with an end-of-text token E (written by `encode_documents`).
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from groundup.data.split import require_tokens
from groundup.data.tokens import Tokens

IGNORED = -100
"""The label of a position that is not trained."""


class Rows(ABC):
    """Rows of `context_length` positions over `tokens`; numbered from 0 to len - 1."""

    packing: ClassVar[str]

    def __init__(self, tokens: Tokens, context_length: int, pad_id: int = 0):
        self.tokens, self.context_length, self.pad_id = tokens, context_length, pad_id

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def locate(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows by number: (first token of each, positions that are not padding), both (n,) int64."""

    def anywhere(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows that begin at any token, by uniform 64-bit `draws` (n,); the same two arrays as `locate`."""
        starts = (draws % np.uint64(max(1, len(self.tokens) - self.context_length))).astype(np.int64)
        return starts, np.minimum(self.context_length, len(self.tokens) - 1 - starts)

    def read(self, starts: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
        """The rows' arrays, (n, context_length) int64 each: "ids", "labels" and, unless the rows are a plain stream,
        "documents".
        """
        window = self.tokens.gather(starts, self.context_length + 1)  # (n, T + 1)
        ids, labels = window[:, :-1].copy(), window[:, 1:].copy()
        padding = np.arange(self.context_length) >= lengths[:, None]  # (n, T)
        ids[padding], labels[padding] = self.pad_id, IGNORED
        batch = {"ids": ids, "labels": labels}
        self.mark_documents(batch, starts, padding)
        return batch

    def mark_documents(  # noqa: B027  (a plain stream has nothing to mark)
        self, batch: dict[str, np.ndarray], starts: np.ndarray, padding: np.ndarray
    ) -> None:
        """Add "documents" and mask the labels that it forbids."""

    def sources(self, starts: np.ndarray, lengths: np.ndarray) -> list[str]:
        """For each row the id of its document, or of its first and last."""
        first = self.tokens.document_at(starts)
        last = self.tokens.document_at(starts + np.maximum(lengths, 1) - 1)
        names = self.tokens.names
        return [names[a] if a == b else f"{names[a]} to {names[b]}" for a, b in zip(first, last, strict=True)]

    def describe(self) -> dict[str, str | int]:
        """What the order and content of the rows depend on."""
        return {
            "content": self.tokens.fingerprint,
            "tokens": len(self.tokens),
            "packing": self.packing,
            "context_length": self.context_length,
            "rows": len(self),
        }


class StreamRows(Rows):
    """Windows over the line of tokens, one every `stride` (default: context_length, so that each token is an input
    once).

    What is left at the end and too short for a window is not used. A stride of 1 gives every possible window.
    """

    packing = "stream"

    def __init__(self, tokens: Tokens, context_length: int, stride: int | None = None, pad_id: int = 0):
        super().__init__(tokens, context_length, pad_id)
        self.stride = stride or context_length

    def __len__(self) -> int:
        # windows at 0, stride, 2 stride, ... below N - T: each has its T inputs and one more token for the last label
        return max(0, -(-(len(self.tokens) - self.context_length) // self.stride))

    def locate(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Rows.locate`."""
        return index * self.stride, np.full(len(index), self.context_length, dtype=np.int64)

    def describe(self) -> dict[str, str | int]:
        """See `Rows.describe`."""
        return super().describe() | {"stride": self.stride}


class DocumentRows(Rows):
    """The stream cut every context_length tokens, each token knowing its document.

    "documents" counts from 1 in each row, so a model attends, and counts positions, within a document; the label that
    would lead from one document to the next is not trained. The last row is filled up with padding: no token is lost.
    """

    packing = "documents"

    def __len__(self) -> int:
        return max(0, -(-(len(self.tokens) - 1) // self.context_length))

    def locate(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Rows.locate`."""
        starts = index * self.context_length
        return starts, np.minimum(self.context_length, len(self.tokens) - 1 - starts)

    def mark_documents(self, batch: dict[str, np.ndarray], starts: np.ndarray, padding: np.ndarray) -> None:
        """See `Rows.mark_documents`."""
        owner = self.tokens.document_at(starts[:, None] + np.arange(self.context_length + 1))  # (n, T + 1)
        changes = owner[:, 1:] != owner[:, :-1]  # (n, T): the label belongs to another document than the input
        batch["labels"][changes] = IGNORED
        documents = np.ones_like(batch["ids"])
        documents[:, 1:] += np.cumsum(changes[:, :-1], axis=1)
        documents[padding] = 0
        batch["documents"] = documents


class PaddedRows(Rows):
    """One document a row, filled up with padding; a document longer than context_length takes several rows.

    A document of n tokens has n - 1 positions with a label; one of a single token has none, and no row.
    """

    packing = "pad"

    def __init__(self, tokens: Tokens, context_length: int, pad_id: int = 0):
        super().__init__(tokens, context_length, pad_id)
        self._positions = np.maximum(np.diff(tokens.offsets) - 1, 0)  # (D,)
        rows = -(-self._positions // context_length)
        self._ends = np.cumsum(rows)  # (D,): rows up to and with document d

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def locate(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Rows.locate`."""
        document = np.searchsorted(self._ends, index, side="right")
        before = np.where(document > 0, self._ends[document - 1], 0)
        begin = (index - before) * self.context_length  # of the piece, within its document
        return self.tokens.offsets[document] + begin, np.minimum(self.context_length, self._positions[document] - begin)

    def anywhere(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Rows.anywhere`."""
        return self.locate((draws % np.uint64(len(self))).astype(np.int64))

    def mark_documents(self, batch: dict[str, np.ndarray], starts: np.ndarray, padding: np.ndarray) -> None:
        """See `Rows.mark_documents`."""
        batch["documents"] = (~padding).astype(np.int64)


def pack(
    tokens: Tokens,
    context_length: int,
    packing: str = "stream",
    *,
    stride: int | None = None,
    pad_id: int = 0,
    part: str = "train",
) -> Rows:
    """The rows of `tokens` in the named packing; a `DataError` if a stream cannot fill one row, or there is nothing
    to learn from.
    """
    if packing == "stream":
        require_tokens(part, len(tokens), context_length)
        return StreamRows(tokens, context_length, stride, pad_id)
    rows = {"documents": DocumentRows, "pad": PaddedRows}[packing](tokens, context_length, pad_id)
    require_tokens(part, len(tokens) if len(rows) else 0, 1)
    return rows
