"""Qwen1.5-MoE and Qwen2-57B-A14B (Yang et al. 2024), from Qwen2: the MLP is many narrow experts, whose weights are not
divided by their sum, and a wide one that every token visits, weighed by a sigmoid of its own.
"""

from typing import Any

from torch import nn

from groundup.layers.activations import activation
from groundup.layers.feedforward import GatedMLP
from groundup.layers.moe.experts import GatedExperts
from groundup.layers.moe.gates.top_k import TopKGate
from groundup.layers.moe.mixture import MixtureOfExperts
from groundup.models.configs.qwen2_moe import Qwen2MoeConfig
from groundup.models.text.mixtral import stacked_experts
from groundup.models.text.qwen2 import Qwen2
from groundup.weights import WeightMap, rule


class Qwen2Moe(Qwen2):
    """Qwen1.5-MoE-A2.7B and Qwen2-57B-A14B."""

    Config = Qwen2MoeConfig
    config: Qwen2MoeConfig  # type: ignore[assignment]

    def make_mlp(self, i: int) -> nn.Module:
        return mixture_with_shared(self.config) if self.config.has_experts(i) else super().make_mlp(i)

    @classmethod
    def weight_map(cls, config: Qwen2MoeConfig) -> WeightMap:  # type: ignore[override]
        ours, theirs = "blocks.{i}.", "model.layers.{i}."
        return (
            super()
            .weight_map(config)
            .plus(
                rule(ours + "mlp.shared", theirs + "mlp.shared_expert"),
                rule(ours + "mlp.shared_gate", theirs + "mlp.shared_expert_gate"),
                *stacked_experts(theirs + "mlp.experts", config.num_experts),
            )
        )


def mixture_with_shared(c: Any) -> MixtureOfExperts:
    """Experts of their own width, and one for all tokens that a sigmoid weighs."""
    act, loss = activation(c.hidden_act), c.router_aux_loss_coef
    gate = TopKGate(c.hidden_size, c.num_experts, c.num_experts_per_tok, normalise=c.norm_topk_prob, balance=loss)
    experts = GatedExperts(c.num_experts, c.hidden_size, c.moe_intermediate_size, act)
    shared = GatedMLP(c.hidden_size, c.shared_expert_intermediate_size, act)
    return MixtureOfExperts(gate, experts, shared, nn.Linear(c.hidden_size, 1, bias=False))
