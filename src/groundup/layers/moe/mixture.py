"""A mixture of experts in the place of a block's MLP."""

import torch
from torch import Tensor, nn

from groundup.layers.context import Context
from groundup.layers.moe.experts import Experts
from groundup.layers.moe.gates.gate import Gate


class MixtureOfExperts(nn.Module):
    """sum_e g_e(x) h_e(x) over the experts that the gate chose, plus what the shared expert says.

    (B, T, D) -> (B, T, D)

    Args:
        gate: who goes where.
        experts: the networks.
        shared: a network that sees every token (Rajbhandari et al. 2022; Dai et al. 2024, DeepSeekMoE), or None.
        shared_gate: one logit a token; its sigmoid multiplies what `shared` says (Qwen2-MoE 2024); or None.
    """

    takes_context = True
    """A block passes the context on: padding is in it."""

    def __init__(
        self,
        gate: Gate,
        experts: Experts,
        shared: nn.Module | None = None,
        shared_gate: nn.Linear | None = None,
    ):
        super().__init__()
        self.gate, self.experts, self.shared, self.shared_gate = gate, experts, shared, shared_gate

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """Without a context there is no padding, and every token is new."""
        documents = None if context is None else context.documents
        real = None if documents is None else (documents != 0).flatten()
        tokens = x.flatten(0, 1)  # (N, D)
        routing = self.gate(tokens, real, decoding=context is not None and context.state is not None)
        y = self.experts(tokens, routing).view_as(x)
        if self.shared is None:
            return y
        shared = self.shared(x)
        return y + (shared if self.shared_gate is None else torch.sigmoid(self.shared_gate(x)) * shared)
