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
        y = self.visited(x, x, context)
        if self.shared is None:
            return y
        shared = self.shared(x)
        return y + (shared if self.shared_gate is None else torch.sigmoid(self.shared_gate(x)) * shared)

    def visited(self, x: Tensor, seen: Tensor, context: Context | None) -> Tensor:
        """What the chosen experts say of x, where the gate sees `seen`. (B, T, D) -> (B, T, D)"""
        documents = None if context is None else context.documents
        real = None if documents is None else (documents != 0).flatten()
        decoding = context is not None and context.state is not None
        routing = self.gate(seen.flatten(0, 1), real, decoding=decoding)  # N = B T tokens
        return self.experts(x.flatten(0, 1), routing).view_as(x)


class NormedMixture(MixtureOfExperts):
    """A mixture beside a dense network, each between norms of its own; the gate sees the stream as it is (Gemma 4).

        shared_end(shared(shared_norm(x))) + end(experts(norm(x)))

    (B, T, D) -> (B, T, D)

    Args:
        gate, experts, shared: as in MixtureOfExperts; the gate gets x itself.
        norm, end: norms before and behind the experts.
        shared_norm, shared_end: those of the dense network.
    """

    def __init__(
        self,
        gate: Gate,
        experts: Experts,
        shared: nn.Module,
        *,
        norm: nn.Module,
        end: nn.Module,
        shared_norm: nn.Module,
        shared_end: nn.Module,
    ):
        super().__init__(gate, experts, shared)
        self.norm, self.end, self.shared_norm, self.shared_end = norm, end, shared_norm, shared_end

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        dense = self.shared_end(self.shared(self.shared_norm(x)))  # type: ignore[misc]
        return dense + self.end(self.visited(self.norm(x), x, context))
