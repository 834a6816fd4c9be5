"""Gated attention (Qiu et al. 2025; Qwen3-Next 2025): each token may close what its heads bring.

    o_proj( attention(x) * sigmoid(gate_proj(x)) )

The gate adds a non-linearity between values and output, and a token that needs nothing closes its heads instead of
attending to the first token (the "attention sink").
"""

from typing import Any, Literal

from torch import Tensor, nn

from groundup.layers.attention import Attention
from groundup.layers.context import Context


class GatedAttention(Attention):
    """Attention whose result is multiplied by a gate from the same token.

    Args:
        args, settings: as in Attention.
        gate: "elementwise", a number for each feature of each head, or "headwise", one for each head.
    """

    def __init__(self, *args: Any, gate: Literal["elementwise", "headwise"] = "elementwise", **settings: Any):
        super().__init__(*args, **settings)
        dim, width = self.q_proj.in_features, self.q_proj.out_features
        outputs = width if gate == "elementwise" else width // self.head_dim
        self.gate_proj = nn.Linear(dim, outputs, bias=self.q_proj.bias is not None)

    def mixed(self, x: Tensor, context: Context) -> Tensor:
        y, gate = super().mixed(x, context), self.gate_proj(x).sigmoid()
        if gate.shape[-1] == y.shape[-1]:
            return y * gate
        return (y.unflatten(-1, (-1, self.head_dim)) * gate[..., None]).flatten(-2)
