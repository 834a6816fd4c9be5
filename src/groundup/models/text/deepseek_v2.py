"""DeepSeek-V2 (DeepSeek-AI 2024), from Llama: attention through a latent, which is all that is remembered, and mixtures
of many narrow experts in all layers but the first, with a shared expert and, in the large model, experts in groups.
"""

import math
from typing import Any

from torch import nn

from groundup.layers.activations import activation
from groundup.layers.feedforward import GatedMLP
from groundup.layers.latent_attention import LatentAttention
from groundup.layers.moe.experts import GatedExperts
from groundup.layers.moe.gates.gate import Gate
from groundup.layers.moe.gates.group_limited import GroupLimitedGate
from groundup.layers.moe.mixture import MixtureOfExperts
from groundup.layers.norms import RMSNorm
from groundup.layers.rope import Rope
from groundup.models.configs.deepseek_v2 import DeepseekV2Config
from groundup.models.configs.llama import RopeParameters
from groundup.models.text.llama import Llama, rope_scaling
from groundup.models.text.mixtral import stacked_experts
from groundup.state import LatentCache, LayerState
from groundup.weights import Fused, WeightMap, WithinHeads, rule


class DeepseekV2(Llama):
    """DeepSeek-V2 and V2-Lite."""

    Config = DeepseekV2Config
    config: DeepseekV2Config  # type: ignore[assignment]

    def make_rope(self, i: int) -> Rope:
        rope, c = self.config.rope_parameters, self.config
        scaling = rope_scaling(rope, c.max_position_embeddings)
        return Rope(c.qk_rope_head_dim, rope.rope_theta, interleaved=True, scaling=scaling)

    def make_attention(self, i: int, **changes: Any) -> nn.Module:
        c = self.config
        width = c.qk_nope_head_dim + c.qk_rope_head_dim
        return LatentAttention(
            c.hidden_size,
            c.num_attention_heads,
            latent_dim=c.kv_lora_rank,
            query_latent_dim=c.q_lora_rank,
            plain_dim=c.qk_nope_head_dim,
            value_dim=c.v_head_dim,
            rope=self.make_rope(i),
            norm=RMSNorm,  # with an epsilon of its own, 1e-6, whatever rms_norm_eps is
            mask=self.make_mask(i),
            bias=c.attention_bias,
            dropout=c.attention_dropout,
            scale=width**-0.5 * sharpening(c.rope_parameters),
        )

    def make_gate(self) -> Gate:
        """Who goes to which expert."""
        c = self.config
        groups = {"num_groups": c.n_group, "kept_groups": c.topk_group} if c.topk_method != "greedy" else {}
        sizes = (c.hidden_size, c.n_routed_experts, c.num_experts_per_tok)
        return GroupLimitedGate(*sizes, **groups, scale=c.routed_scaling_factor, balance=c.aux_loss_alpha)

    def make_mlp(self, i: int) -> nn.Module:
        c = self.config
        if not c.has_experts(i):
            return super().make_mlp(i)
        act, width = activation(c.hidden_act), c.moe_intermediate_size
        shared = GatedMLP(c.hidden_size, c.n_shared_experts * width, act) if c.n_shared_experts else None
        return MixtureOfExperts(self.make_gate(), GatedExperts(c.n_routed_experts, c.hidden_size, width, act), shared)

    def make_layer_state(self, i: int, max_len: int) -> dict[str, LayerState]:
        return {"attn": LatentCache(max_len)}

    @classmethod
    def weight_map(cls, config: DeepseekV2Config) -> WeightMap:  # type: ignore[override]
        ours, theirs, c = "blocks.{i}.", "model.layers.{i}.", config
        down, up = (f"{theirs}self_attn.kv_{name}" for name in ("a_proj_with_mqa", "b_proj"))
        latent = "" if c.q_lora_rank is None else "b_"
        return WeightMap(
            rule("embed.tokens", "model.embed_tokens"),
            rule(ours + "norm1", theirs + "input_layernorm"),
            rule(ours + "attn.q_down_proj", theirs + "self_attn.q_a_proj"),
            rule(ours + "attn.q_norm", theirs + "self_attn.q_a_layernorm"),
            rule(ours + "attn.q_proj", f"{theirs}self_attn.q_{latent}proj"),
            rule(
                [ours + "attn.kv_down_proj", ours + "attn.k_rope_proj"], down, Fused(c.kv_lora_rank, c.qk_rope_head_dim)
            ),
            rule(ours + "attn.kv_norm", theirs + "self_attn.kv_a_layernorm"),
            rule(
                [ours + "attn.k_proj", ours + "attn.v_proj"],
                up,
                WithinHeads(c.num_attention_heads, c.qk_nope_head_dim, c.v_head_dim),
            ),
            rule(ours + "attn.o_proj", theirs + "self_attn.o_proj"),
            rule(ours + "norm2", theirs + "post_attention_layernorm"),
            rule(ours + "mlp", theirs + "mlp"),
            rule(ours + "mlp.shared", theirs + "mlp.shared_experts"),
            rule(ours + "mlp.gate.correction", theirs + "mlp.gate.e_score_correction_bias"),
            *stacked_experts(theirs + "mlp.experts", c.n_routed_experts),
            rule("norm", "model.norm"),
            rule("lm_head", "lm_head"),
            # the last layer of released files predicts a second token, and is for training alone
            ignore=("*.rotary_emb.inv_freq", f"model.layers.{c.num_hidden_layers}.*"),
            i=c.num_hidden_layers,
        )


def sharpening(rope: RopeParameters) -> float:
    """YaRN's factor of the scores, (0.1 mscale_all_dim ln s + 1)^2, which DeepSeek applies to whole heads: it divides
    cosines and sines by its root, so that the parts without positions get it too.
    """
    if rope.rope_type == "default" or not rope.mscale_all_dim or (rope.factor or 1) <= 1:
        return 1.0
    return (0.1 * rope.mscale_all_dim * math.log(rope.factor or 1) + 1) ** 2
