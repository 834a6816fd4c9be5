"""Output heads with more than one task."""

from torch import Tensor, nn


class TaskHead(nn.Linear):
    """The language model's head, and beside it a linear layer that judges a whole text from one of its vectors
    (Radford et al. 2018).

    As a head it gives the logits of tokens, (..., D) -> (..., V).

    Args:
        dim: D.
        vocab: V.
        outputs: numbers that the task's layer gives: classes, or 1 for the score of a choice.
        dropout: of the vectors before the task's layer.
    """

    def __init__(self, dim: int, vocab: int, outputs: int, dropout: float = 0.0):
        super().__init__(dim, vocab, bias=False)
        self.task = nn.Linear(dim, outputs)
        self.dropout = nn.Dropout(dropout)

    def judge(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., outputs)"""
        return self.task(self.dropout(hidden))
