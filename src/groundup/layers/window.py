"""The last n tokens at every position: what models of a fixed, short memory see."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from groundup.layers.context import Context

if TYPE_CHECKING:
    from groundup.layers.sequences import Sequences
    from groundup.state import RecurrentState


class Window(nn.Module):
    """The last `width` tokens of each token's document, the oldest first, itself the last.

    (B, T, ...) -> (B, T, width, ...), ids or vectors. Before the begin of a document stands `fill`. With a state, a row
    goes on where it ended.

    Args:
        width: how many.
        fill: what stands before the begin.
    """

    path: str = ""
    """Dotted name of this module in its model: the name of its part of the state."""

    def __init__(self, width: int, fill: float = 0.0):
        super().__init__()
        self.width, self.fill = width, fill

    def forward(self, x: Tensor, context: Context) -> Tensor:
        sequences = context.sequences((x.shape[0], x.shape[1]))
        kept = None if context.state is None else context.state.layers[self.path]
        before = self._before(x, sequences, kept)  # (S, width, ...)
        line = torch.cat((before.flatten(0, 1), sequences.take(x)))  # (S width + N, ...)
        windows = line[self._places(sequences, sequences.document, sequences.step)]
        if kept is not None:
            # what a token behind the last one would have before it
            documents = torch.arange(len(sequences.rows), device=x.device)
            after = line[self._places(sequences, documents, sequences.lengths - 1)]
            kept.tensors["last"] = self._all(x, kept).index_copy(0, sequences.rows, after)
        return sequences.put_back(windows)

    def _places(self, sequences: "Sequences", document: Tensor, step: Tensor) -> Tensor:
        """Where in `line` the last tokens up to number `step` of each document stand, (M,) -> (M, width)."""
        wanted = step[:, None] - torch.arange(self.width - 1, -1, -1, device=step.device)  # (M, width), below 0: before
        inside = len(sequences.rows) * self.width + sequences.begin[wanted.clamp(min=0)] + document[:, None]
        return torch.where(wanted >= 0, inside, (document[:, None] + 1) * self.width + wanted)

    def _before(self, x: Tensor, sequences: "Sequences", kept: "RecurrentState | None") -> Tensor:
        if kept is None:
            return x.new_full((len(sequences.rows), self.width, *x.shape[2:]), self.fill)
        return self._all(x, kept)[sequences.rows]

    def _all(self, x: Tensor, kept: "RecurrentState") -> Tensor:
        """The last tokens of every row so far, (B, width, ...)."""
        return kept.tensors.get("last", x.new_full((len(x), self.width, *x.shape[2:]), self.fill))
