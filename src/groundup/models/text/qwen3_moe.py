"""Qwen3-30B-A3B and 235B-A22B (Yang et al. 2025), from Qwen3: the MLP is 8 of 128 narrow experts. Against Qwen2-MoE the
shared expert is gone, and the weights of the chosen sum to 1.
"""

from torch import nn

from groundup.layers.activations import activation
from groundup.layers.moe.experts import GatedExperts
from groundup.layers.moe.gates.top_k import TopKGate
from groundup.layers.moe.mixture import MixtureOfExperts
from groundup.models.configs.qwen3_moe import Qwen3MoeConfig
from groundup.models.text.mixtral import stacked_experts
from groundup.models.text.qwen3 import Qwen3
from groundup.weights import WeightMap


class Qwen3Moe(Qwen3):
    """Qwen3-30B-A3B and 235B-A22B."""

    Config = Qwen3MoeConfig
    config: Qwen3MoeConfig  # type: ignore[assignment]

    def make_mlp(self, i: int) -> nn.Module:
        c = self.config
        if not c.has_experts(i):
            return super().make_mlp(i)
        act, loss = activation(c.hidden_act), c.router_aux_loss_coef
        gate = TopKGate(c.hidden_size, c.num_experts, c.num_experts_per_tok, normalise=c.norm_topk_prob, balance=loss)
        return MixtureOfExperts(gate, GatedExperts(c.num_experts, c.hidden_size, c.moe_intermediate_size, act))

    @classmethod
    def weight_map(cls, config: Qwen3MoeConfig) -> WeightMap:  # type: ignore[override]
        return super().weight_map(config).plus(*stacked_experts("model.layers.{i}.mlp.experts", config.num_experts))
