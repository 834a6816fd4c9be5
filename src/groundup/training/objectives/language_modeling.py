"""Next-token prediction: maximise the probability of each token given those before it.

loss = - sum over t of log p(x[t+1] | x[..t])
"""

from typing import Any

from torch import Tensor, nn

from groundup.training.objectives.config import LanguageModelingConfig
from groundup.training.objectives.cross_entropy import chunked_cross_entropy
from groundup.training.objectives.objective import Batch, Head


class LanguageModeling:
    """Cross-entropy against `labels`, which are already shifted; its weight is the number of those not -100."""

    rows_together = 1

    def __init__(self, config: LanguageModelingConfig | None = None):
        self.config = config or LanguageModelingConfig()

    def prepare(self, batch: Batch) -> Batch:
        """Nothing to prepare."""
        return batch

    def head(self, batch: Batch) -> Head:
        """The loss in chunks, inside the model's forward pass."""
        labels, settings = batch["labels"], self.config

        def cross_entropy(hidden: Tensor, lm_head: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
            return chunked_cross_entropy(
                hidden,
                lm_head,
                labels,
                settings.chunk_tokens,
                settings.label_smoothing,
                settings.z_loss,
                settings.accuracy,
            )

        return cross_entropy

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """(summed loss, labelled tokens, {accuracy: right first guesses})."""
        total, weight, right = outputs
        return total, weight, {"accuracy": right} if self.config.accuracy else {}
