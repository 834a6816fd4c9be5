"""The dense gate: every token goes to every expert."""

import torch
from torch import Tensor

from groundup.layers.moe.gates.gate import Gate
from groundup.layers.moe.routing import Routing


class DenseGate(Gate):
    """g = softmax(W x), and the mixture is sum_e g_e h_e(x) (Jacobs et al. 1991; Jordan & Jacobs 1994).

    Its gradient is sum_e g_e (h_e d log g_e + d h_e): an expert learns as much as the gate believes in it.
    """

    def choose(self, logits: Tensor, real: Tensor | None) -> Routing:
        g = logits.softmax(dim=-1)
        experts = torch.arange(self.num_experts, device=logits.device).expand(len(logits), -1)
        return Routing(experts, g, g, self.num_experts)
