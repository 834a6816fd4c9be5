"""What every objective is to the loop."""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn

Batch = dict[str, Any]
"""Tensors whose first dimension is rows: ids, labels, documents ...; and `sources`, a list of document ids."""

Head = Callable[[Tensor, nn.Module], Any]


class Objective(Protocol):
    """Gives a sum and the weight it is a sum over, never a mean.

    The loop adds sums and weights over micro-batches and ranks and divides once, so that loss and gradient do not
    depend on how a batch was split.
    """

    rows_together: int
    """Rows that must stay in one micro-batch: 2 for pairs, G for groups."""

    def prepare(self, batch: Batch) -> Batch:
        """Add what needs no gradient (log-probabilities of a reference, advantages); called without gradient."""
        ...

    def head(self, batch: Batch) -> Head | None:
        """What `model(..., head=)` computes instead of all logits; None for all logits."""
        ...

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """(summed loss, weight, metrics): scalars; metrics are sums over the same weight."""
        ...
