"""Floating-point operations of a decoder: a multiplication and an addition count as two.

Matrix products only, as is usual; norms, activations and softmax add a few percent at small widths.
"""

from dataclasses import dataclass
from typing import Any

from groundup.estimates.built import Built, shape_of
from groundup.estimates.params import active_parameters, mixing_matrices, mlp_matrices


@dataclass(frozen=True)
class Flops:
    """Forward operations of `tokens` tokens, by kind of product.

    Attributes:
        projections: query, key, value and output projections, and those of narrow token vectors.
        scores: q kᵀ and the weighted sum of values, over all T x T pairs, as dense kernels compute them; of memories of
            one size what the recurrence says, which is less than their computation chunk by chunk.
        mlp: the feed-forward matrices; of a model that is counted by building it, all matrices but the head.
        head: the output head.
    """

    projections: int
    scores: int
    mlp: int
    head: int

    @property
    def forward(self) -> int:
        """One forward pass."""
        return self.projections + self.scores + self.mlp + self.head

    @property
    def backward(self) -> int:
        """Twice the forward pass: each product has a gradient for its input and one for its weight."""
        return 2 * self.forward

    @property
    def training(self) -> int:
        """Forward and backward."""
        return self.forward + self.backward


def flops(config: Any, seq_len: int, batch: int = 1) -> Flops:
    """Operations of a (batch, seq_len) forward pass with full logits.

    Of a mixture the experts that a token visits, and its gate.

    projections 2 T (d h k + 2 d g k + h k d);  scores 2 x 2 T² h k;  MLP 2 T x 2 d f (3 d f gated);  head 2 T d V.
    """
    s, tokens = shape_of(config), batch * seq_len
    if isinstance(s, Built):
        scores = 2 * tokens * seq_len * s.pairs
        return Flops(projections=0, scores=scores, mlp=2 * tokens * s.products, head=2 * tokens * s.head)
    each = s.latent.plain + s.latent.rope + s.latent.value if s.latent else 2 * s.head_dim
    pair = sum(level.attention_layers * level.heads * each for level in s.levels)
    memories = 0 if s.memories is None else 2 * tokens * s.memories.layers * s.memories.products()
    ends = 0 if s.narrow is None else 4 * tokens * s.hidden * s.narrow
    return Flops(
        projections=2 * tokens * sum(mixing_matrices(level) for level in s.levels) + ends,
        scores=2 * tokens * seq_len * pair + memories,
        mlp=2 * tokens * sum(mlp_matrices(level) for level in s.levels),
        head=2 * tokens * s.vectors * s.vocab,
    )


def training_flops_per_token(config: Any, seq_len: int, learns: float = 1.0) -> float:
    """Forward and backward operations of one token at this sequence length: exact by `flops`.

    `learns`: the share of the weights that learn. Of x W^T, dx = dy W and dW = dy^T x the others need no dW.
    """
    cost = flops(config, seq_len)
    return (cost.training - (1 - learns) * (cost.forward - cost.scores)) / seq_len


def rule_6n(parameters: int, tokens: float) -> float:
    """C = 6 N D (Kaplan et al. 2020): training operations of N parameters on D tokens, without attention scores."""
    return 6 * parameters * tokens


def palm_flops_per_token(config: Any, seq_len: int) -> int:
    """6 N + 12 L H Q T of Chowdhery et al. (2022, appendix B), N without the embedding tables."""
    s = shape_of(config)
    if isinstance(s, Built):
        return 6 * (s.products + s.head) + 6 * s.pairs * seq_len
    positions = s.position_tables * s.learned_positions * s.hidden
    n = active_parameters(s) - positions - (0 if s.tied else s.vocab * s.vectors)
    heads = sum(level.attention_layers * level.heads for level in s.levels)
    return 6 * n + 12 * heads * s.head_dim * seq_len


def utilisation(tokens_per_second: float, flops_per_token: float, peak_flops: float) -> float:
    """Model FLOPs utilisation (Chowdhery et al. 2022): the share of the peak that does the model's work."""
    return tokens_per_second * flops_per_token / peak_flops


def training_days(parameters: float, tokens: float, devices: int, peak_flops: float, mfu: float) -> float:
    """Days of training by the 6 N D rule: GPT-3 (174.6B, 300B tokens) on 1024 A100 (312e12) at 45 % is 25 days."""
    return rule_6n(round(parameters), tokens) / (devices * peak_flops * mfu) / 86400
