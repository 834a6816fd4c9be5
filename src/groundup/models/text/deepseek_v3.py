"""DeepSeek-V3 (DeepSeek-AI 2024), from DeepSeek-V2: experts are scored by a sigmoid, and their loads are evened by
biases on the choice in place of a loss; three layers without experts come first. R1 has the same form.

Predicting a second token (the file's last layer) is left out: it is for training, or for guesses while decoding.
"""

import dataclasses

from groundup.layers.moe.gates.gate import Gate
from groundup.layers.moe.gates.loss_free import LossFreeGate
from groundup.layers.rope import Rope
from groundup.models.configs.deepseek_v3 import DeepseekV3Config
from groundup.models.text.deepseek_v2 import DeepseekV2


class DeepseekV3(DeepseekV2):
    """DeepSeek-V3 and R1."""

    Config = DeepseekV3Config
    config: DeepseekV3Config  # type: ignore[assignment]
    float32 = ("*.mlp.gate.correction",)

    def make_rope(self, i: int) -> Rope:
        return dataclasses.replace(super().make_rope(i), interleaved=self.config.rope_interleave)

    def make_gate(self) -> Gate:
        c = self.config
        return LossFreeGate(
            *(c.hidden_size, c.n_routed_experts, c.num_experts_per_tok),
            num_groups=c.n_group,
            kept_groups=c.topk_group,
            normalise=c.norm_topk_prob,
            scale=c.routed_scaling_factor,
            rate=c.bias_update_rate,
            balance=c.aux_loss_alpha,
        )
