"""Two language models at once, one from each end (Peters et al. 2018).

loss = - sum over k of log p(t[k+1] | t[..k]) + log p(t[k-1] | t[k..])
"""

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from groundup.base.errors import UsageError
from groundup.training.objectives.cross_entropy import IGNORED, chunked_cross_entropy
from groundup.training.objectives.objective import Batch, Head

if TYPE_CHECKING:
    from groundup.training.objectives.config import BidirectionalConfig


class BidirectionalLanguageModeling:
    """Cross-entropy of both directions under one softmax; its weight counts the labels of both."""

    rows_together = 1

    def __init__(self, config: "BidirectionalConfig"):
        self.config = config

    def prepare(self, batch: Batch) -> Batch:
        """The token before each, as its label; none at the begin of a document."""
        return batch if "labels_before" in batch else batch | {"labels_before": labels_before(batch)}

    def head(self, batch: Batch) -> Head:
        """Both losses in chunks, inside the model's forward pass."""

        def cross_entropy(hidden: Tensor, lm_head: nn.Module) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
            linear = getattr(lm_head, "linear", None)
            if linear is None or hidden.shape[-1] != 2 * linear.in_features:
                raise UsageError("bidirectional_language_modeling needs a model that reads from both ends, as `elmo`")
            forwards, backwards = hidden.chunk(2, dim=-1)
            chunk = self.config.chunk_tokens
            ahead, count, _ = chunked_cross_entropy(forwards, linear, batch["labels"], chunk)
            behind, count_behind, _ = chunked_cross_entropy(backwards, linear, batch["labels_before"], chunk)
            both = count + count_behind
            # metrics are means over the whole weight, so each direction's is scaled to its own
            shares = {"loss_forwards": ahead * both / count, "loss_backwards": behind * both / count_behind}
            return ahead + behind, both, {name: value.detach() for name, value in shares.items()}

        return cross_entropy

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """(summed loss, labels of both directions, {each direction's loss})."""
        return outputs


def labels_before(batch: Batch) -> Tensor:
    """For each token the one before it in its document; -100 where there is none, and at padding. (B, T)"""
    ids, documents = batch["ids"], batch.get("documents")
    before = ids.new_full(ids.shape, IGNORED)
    before[:, 1:] = ids[:, :-1]
    if documents is not None:
        before[:, 1:][documents[:, 1:] != documents[:, :-1]] = IGNORED
        before[documents == 0] = IGNORED
    return before
