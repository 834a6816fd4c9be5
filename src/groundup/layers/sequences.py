"""Documents as sequences of their own, laid out step by step: what a recurrent layer runs over.

A batch of rows (B, T) may hold padding on either side and several documents a row. Cut into its documents, sorted by
length and laid out step by step, it becomes one list of tokens in which padding does not appear:

    row 0   . . a b c          step   0   1   2
    row 1   d e f g h          sizes  3   2   2 ...      d a i | e b j | f c | g | h
    row 2   i j . . .

Step t holds the tokens number t of all documents longer than t, the longest first, so the documents that go on are
always the first ones. This is the layout of torch's PackedSequence (and of cuDNN), so its kernels take it as it is.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Sequences:
    """The tokens of a batch, step by step. N: tokens that are not padding; S: documents.

    Attributes:
        order: (N,) int64, where each token stands in the flattened (B T) batch.
        sizes: documents that have a token number t, for each t.
        rows: (S,) int64, the row of each document, the longest document first.
        shape: (B, T).
    """

    order: Tensor
    sizes: list[int]
    rows: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, shape: tuple[int, int], documents: Tensor | None, device: torch.device) -> "Sequences":
        """The documents of a batch: documents (B, T) int64, 0 for padding; None for one document per row.

        Equal numbers of a row are one document, padding between them or not. It asks the device for the lengths.
        """
        batch, length = shape
        if documents is None:
            order = torch.arange(batch * length, device=device).view(batch, length).T.reshape(-1)
            return cls(order, [batch] * length, torch.arange(batch, device=device), shape)
        flat = documents.reshape(-1)
        tokens = flat.nonzero()[:, 0]  # (N,) where the real tokens stand
        row = tokens // length
        _, document = torch.unique(row * (flat.max() + 1) + flat[tokens], return_inverse=True)  # (N,) 0..S-1
        lengths = torch.bincount(document)  # (S,)
        ranks = lengths.argsort(descending=True, stable=True)  # (S,) the longest first
        rank = torch.empty_like(ranks)
        rank[ranks] = torch.arange(len(ranks), device=device)
        step = _number_within(document, lengths)  # (N,) 0, 1, 2, ... within each document
        order = tokens[(step * max(1, len(lengths)) + rank[document]).argsort()]
        rows = torch.empty_like(ranks)
        rows[rank[document]] = row
        return cls(order, torch.bincount(step).tolist(), rows, shape)

    @cached_property
    def begin(self) -> Tensor:
        """(steps + 1,) int64, where each step begins among the N tokens; the last is N."""
        sizes = torch.tensor([0, *self.sizes], dtype=torch.int64, device=self.order.device)
        return sizes.cumsum(0)

    @cached_property
    def step(self) -> Tensor:
        """(N,) int64, the number of each token in its document."""
        steps = torch.arange(len(self.sizes), device=self.order.device)
        if self._even:  # known without asking the device
            return steps.repeat_interleave(len(self.rows))
        return steps.repeat_interleave(self.begin.diff())

    @cached_property
    def document(self) -> Tensor:
        """(N,) int64, which document each token belongs to, the longest being 0."""
        return torch.arange(len(self.step), device=self.order.device) - self.begin[self.step]

    @cached_property
    def lengths(self) -> Tensor:
        """(S,) int64, tokens of each document."""
        if self._even:
            return torch.full_like(self.rows, len(self.sizes))
        return torch.bincount(self.document, minlength=len(self.rows))

    @property
    def _even(self) -> bool:
        """Whether all documents are of one length."""
        return all(size == len(self.rows) for size in self.sizes)

    def backwards(self) -> "Sequences":
        """The same documents, each read from its last token to its first."""
        # Token number t of a document changes places with number length - 1 - t; the sizes stay as they are.
        step = self.lengths[self.document] - 1 - self.step
        return Sequences(self.order[self.begin[step] + self.document], self.sizes, self.rows, self.shape)

    def take(self, x: Tensor) -> Tensor:
        """(B, T, ...) -> (N, ...), the tokens step by step."""
        return x.flatten(0, 1)[self.order]

    def put_back(self, y: Tensor) -> Tensor:
        """(N, ...) -> (B, T, ...); padding gets zeros."""
        flat = y.new_zeros(self.shape[0] * self.shape[1], *y.shape[1:])
        return flat.index_copy(0, self.order, y).unflatten(0, self.shape)


def _number_within(group: Tensor, lengths: Tensor) -> Tensor:
    """For each element its number among those of its group, in order. group (N,) 0..S-1, lengths (S,) -> (N,)"""
    by_group = group.argsort(stable=True)
    begin = lengths.cumsum(0) - lengths
    number = torch.arange(len(group), device=group.device) - begin[group[by_group]]
    return torch.empty_like(number).scatter_(0, by_group, number)
