"""Fine-tuning for a task together with language modelling (Radford et al. 2018, section 3.2).

    L3 = L2 + λ L1        L2 = -log p(y | x_1 .. x_m),  p = softmax(h_m W_y)        L1 = -mean_t log p(x_t | x_<t)

h_m is the last block's vector of the extract token that ends a text; L1 is the mean over a text's tokens, as in the
authors' code, and both are means over examples. An example is one text, or several (`groundup.data.task_inputs`):

    classification, entailment   one text; h_m W_y are the scores of the classes
    similarity                   the pair in both orders; their two h_m are added
    multiple_choice              a text for each answer; h_m W_y is one number, the score of that answer
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.base.errors import DataError, UsageError
from groundup.layers.heads import TaskHead
from groundup.training.objectives.config import JointFineTuningConfig
from groundup.training.objectives.cross_entropy import chunked_cross_entropy
from groundup.training.objectives.objective import Batch, Head


class JointFineTuning:
    """L2 + λ L1; the weight is the number of examples. The model needs a `TaskHead`.

    A batch holds ids, labels (shifted; -100 for padding), documents, `last` (rows,): the place of the extract token,
    and `targets` (rows,): the class or the right answer of the row's example. Rows of an example stand together.
    """

    def __init__(self, config: JointFineTuningConfig | None = None):
        self.config = config or JointFineTuningConfig()
        rows = {"similarity": 2, "multiple_choice": self.config.choices}
        self.rows_together = rows.get(self.config.task, 1)

    def prepare(self, batch: Batch) -> Batch:
        """The batch as it is; one without examples of a task is refused."""
        missing = [name for name in ("last", "targets") if name not in batch]
        if missing:
            raise DataError(
                f"joint fine-tuning needs `{'` and `'.join(missing)}` in every batch: "
                "groundup.data.task_inputs makes them from examples; plain text has none"
            )
        return batch

    def head(self, batch: Batch) -> Head:
        """Scores of the task and summed losses of language, inside the model's forward pass."""

        def both(hidden: Tensor, lm_head: nn.Module) -> tuple[Tensor, Tensor]:
            if not isinstance(lm_head, TaskHead):
                raise UsageError("joint fine-tuning needs a second head: set task_outputs in the model's config")
            return self.scores(hidden, lm_head, batch["last"]), self.language(hidden, lm_head, batch["labels"])

        return both

    def scores(self, hidden: Tensor, head: TaskHead, last: Tensor) -> Tensor:
        """(rows, T, D), (rows,) -> (examples, classes or choices)"""
        ends = hidden[torch.arange(len(hidden), device=hidden.device), last]  # (rows, D)
        if self.config.task == "similarity":
            ends = ends.unflatten(0, (-1, 2)).sum(1)  # (examples, D)
        scores = head.judge(ends)
        if self.config.task != "multiple_choice":
            return scores
        if scores.shape[-1] != 1:
            raise UsageError(f"a choice has one score: task_outputs is 1 in multiple_choice, not {scores.shape[-1]}")
        return scores[:, 0].unflatten(0, (-1, self.config.choices))

    def language(self, hidden: Tensor, head: nn.Module, labels: Tensor) -> Tensor:
        """The mean loss of each row's tokens, added up over the rows of an example by their mean: a scalar sum."""
        total = hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32))
        if self.config.language_weight == 0:
            return total
        for row, row_labels in zip(hidden, labels, strict=True):
            loss, tokens, _ = chunked_cross_entropy(row, head, row_labels, self.config.chunk_tokens)
            total = total + loss / tokens.clamp(min=1)
        return total / self.rows_together

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """(summed L2 + λ L1, examples, {task_loss, language_loss, accuracy} as sums)."""
        scores, language = outputs
        targets = batch["targets"][:: self.rows_together]
        task = F.cross_entropy(scores.float(), targets, reduction="sum")
        right = (scores.argmax(-1) == targets).sum()
        metrics = {"task_loss": task.detach(), "language_loss": language.detach(), "accuracy": right}
        weight = torch.tensor(len(targets), device=targets.device)
        return task + self.config.language_weight * language, weight, metrics
