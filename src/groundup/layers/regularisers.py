"""What keeps recurrent models from learning a text by heart (Merity, Keskar & Socher 2017, AWD-LSTM).

The fifth of them, dropout of the state's matrix, is `weight_dropout` of `layers.recurrent.Recurrent`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.layers.context import Context
from groundup.layers.embedding import Embedding


class LockedDropout(nn.Module):
    """Dropout with one mask for all positions of a row (Gal & Ghahramani 2016): a feature is there, or it is not.

    (B, T, D) -> (B, T, D)
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        return x * F.dropout(torch.ones_like(x[:, :1]), self.p)


class WordDropEmbedding(Embedding):
    """Whole words are dropped: all occurrences of a word in a batch become zero vectors, the others grow by
    1 / (1 - p) (Gal & Ghahramani 2016). Then locked dropout of the vectors' features.

    Args:
        num_embeddings, dim: V and D.
        word_dropout: p.
        dropout: of the features.
    """

    def __init__(self, num_embeddings: int, dim: int, word_dropout: float = 0.0, dropout: float = 0.0):
        super().__init__(num_embeddings, dim)
        self.word_dropout, self.dropout = word_dropout, LockedDropout(dropout)  # type: ignore[assignment]

    def forward(self, x: Tensor, context: Context) -> Tensor:
        vectors = self.vectors(x)
        if self.training and self.word_dropout and not x.is_floating_point():
            kept = F.dropout(vectors.new_ones(self.tokens.num_embeddings, 1), self.word_dropout)  # (V, 1)
            vectors = vectors * kept[x]
        return self.dropout(vectors)


class ActivationPenalty(nn.Module):
    """Identity whose gradient is that of a penalty beside the loss: small outputs (AR), and slow ones (TAR).

        α mean(h_t²) + β mean((h_{t+1} - h_t)²)         means over the D features, sums over tokens

    The loss of the loop is a sum over tokens, divided by their number once, so the penalty is a sum over tokens too. It
    enters at this module's place, so no objective has to know of it. Only the slow part crosses no document's end.

    Args:
        alpha: of the size (2 in the paper, on the outputs after dropout).
        beta: of the change (1 in the paper).
    """

    def __init__(self, alpha: float = 0.0, beta: float = 0.0):
        super().__init__()
        self.alpha, self.beta = alpha, beta

    def forward(self, x: Tensor, context: Context) -> Tensor:
        if not self.training or not (self.alpha or self.beta) or not x.requires_grad:
            return x
        documents = context.documents
        real = torch.ones(x.shape[:2], device=x.device) if documents is None else (documents != 0)
        goes_on = torch.ones(x.shape[0], x.shape[1] - 1, device=x.device)
        if documents is not None:
            goes_on = (documents[:, 1:] == documents[:, :-1]) & (documents[:, 1:] != 0)
        return _Penalised.apply(x, real.to(x.dtype), goes_on.to(x.dtype), self.alpha, self.beta)  # type: ignore[return-value]


class _Penalised(torch.autograd.Function):
    """Forward: nothing. Backward: the incoming gradient plus the penalty's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, real: Tensor, goes_on: Tensor, alpha: float, beta: float) -> Tensor:
        ctx.save_for_backward(x, real, goes_on)
        ctx.alpha, ctx.beta = alpha, beta
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, real, goes_on = ctx.saved_tensors
        # d/dh_t of α h_t² / D:  2 α h_t / D
        gradient = gradients[0] + 2 * ctx.alpha / x.shape[-1] * x * real[..., None]
        # d/dh of β (h_{t+1} - h_t)² / D:  ± 2 β (h_{t+1} - h_t) / D
        change = 2 * ctx.beta / x.shape[-1] * x.diff(dim=1) * goes_on[..., None]
        gradient[:, 1:] += change
        gradient[:, :-1] -= change
        return gradient, None, None, None, None
