"""Classes of whole texts: cross-entropy of a model that gives one row of scores a text."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from groundup.training.objectives.objective import Batch


class Classification:
    """Cross-entropy of scores (B, C) against `classes` (B,) int64 of the batch; its weight is the number of texts."""

    rows_together = 1

    def prepare(self, batch: Batch) -> Batch:
        """Nothing to prepare."""
        return batch

    def head(self, batch: Batch) -> None:
        """None: the model's own scores."""

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """(summed loss, texts, {accuracy: right ones})."""
        classes = batch["classes"]
        right = (outputs.argmax(-1) == classes).sum()
        total = F.cross_entropy(outputs.float(), classes, reduction="sum")
        return total, classes.new_tensor(len(classes)), {"accuracy": right}
