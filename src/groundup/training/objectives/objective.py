"""What every objective is to the loop."""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn

Batch = dict[str, Any]
"""Tensors whose first dimension is rows: ids, labels, documents ...; and `sources`, a list of document ids."""

Head = Callable[[Tensor, nn.Module], Any]


INPUTS = ("positions", "documents", "segments")
"""Tensors of a batch that a model takes besides its ids."""


class Objective(Protocol):
    """Gives a sum and the weight it is a sum over, never a mean.

    The loop adds sums and weights over micro-batches and ranks and divides once, so that loss and gradient do not
    depend on how a batch was split. An objective that takes something out of the text (`blank_infilling`) also has
    `corrupt(batch)`: it is called once for a step's rows, before they are split, and draws from torch's generator.
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


def corrupted(objective: Objective, batch: Batch) -> Batch:
    """The rows that are trained on: those of the data, unless the objective changes them."""
    corrupt = getattr(objective, "corrupt", None)
    return batch if corrupt is None else corrupt(batch)


def model_inputs(batch: Batch) -> dict[str, Tensor]:
    """What a batch gives the model besides its ids."""
    return {name: batch[name] for name in INPUTS if batch.get(name) is not None}
