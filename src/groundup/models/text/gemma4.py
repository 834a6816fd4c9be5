"""The text model of Gemma 4 (Google DeepMind 2026), from Gemma 3. Layers that see all have heads of another width, turn
a quarter of their pairs, and in the large sizes take keys as values. Values are normalised, scores are not scaled. The
gains of norms are w, no longer 1 + w. Each block ends with a number that multiplies the stream.

E2B and E4B: a second vector for each token and layer enters at the end of the block, and the last layers read the keys
and values of earlier ones. 26B-A4B: a mixture of experts stands beside the MLP.
"""

from typing import Any

from torch import nn

from groundup.layers.activations import activation
from groundup.layers.attentions.shared_keys import BorrowingAttention, LendingAttention
from groundup.layers.block import ThirdBranchBlock
from groundup.layers.embedding import Embedding
from groundup.layers.feedforward import GatedMLP
from groundup.layers.moe.experts import GatedExperts
from groundup.layers.moe.gates.normed_top_k import NormedTopKGate
from groundup.layers.moe.mixture import NormedMixture
from groundup.layers.norms import Float32RMSNorm, PlainRMSNorm
from groundup.layers.per_layer_inputs import PerLayerBranch, PerLayerEmbedding
from groundup.layers.rope import Rope
from groundup.layers.rotary_scaling import ProportionalScaling
from groundup.models.configs.gemma4 import Gemma4Config
from groundup.models.configs.layer_kinds import FULL
from groundup.models.text.gemma3 import Gemma3
from groundup.weights import Fused, Rule, WeightMap, rule


class Gemma4(Gemma3):
    """Gemma 4, text alone."""

    Config = Gemma4Config
    config: Gemma4Config  # type: ignore[assignment]

    def make_embed(self) -> Embedding:
        c = self.config
        if not c.hidden_size_per_layer_input:
            return super().make_embed()
        width, rows = c.hidden_size_per_layer_input, c.vocab_size_per_layer_input
        norm = Float32RMSNorm(width, c.rms_norm_eps)
        return PerLayerEmbedding(c.vocab_size, c.hidden_size, c.num_hidden_layers, width, norm, rows)

    def make_norm(self) -> nn.Module:
        return Float32RMSNorm(self.config.hidden_size, self.config.rms_norm_eps)

    def make_rope(self, i: int) -> Rope:
        c, rope = self.config, self.config.rope_parameters
        if c.kind(i) != FULL:
            return Rope(c.head_width(i), c.rope_local_base_freq)
        scaling = ProportionalScaling(rope.partial_rotary_factor, rope.factor or 1.0)
        return Rope(c.head_width(i), rope.rope_theta, scaling=scaling)

    def make_attention(self, i: int, **changes: Any) -> nn.Module:
        c, d = self.config, self.config.head_width(i)
        sizes = (c.hidden_size, c.num_attention_heads, c.kv_heads(i), d)
        settings = {"rope": self.make_rope(i), "mask": self.make_mask(i), "dropout": c.attention_dropout, "scale": 1.0}
        settings |= {"bias": c.attention_bias, "q_norm": Float32RMSNorm(d, c.rms_norm_eps)} | changes
        if c.borrows(i):
            return BorrowingAttention(*sizes, source=f"blocks.{c.lender(i)}.attn", **settings)
        settings |= {"k_norm": Float32RMSNorm(d, c.rms_norm_eps), "v_norm": PlainRMSNorm(c.rms_norm_eps)}
        return LendingAttention(*sizes, keys_as_values=c.keys_are_values(i), lends=c.lends(i), **settings)

    def make_mlp(self, i: int) -> nn.Module:
        c, act = self.config, activation(self.config.hidden_act)
        dense = GatedMLP(c.hidden_size, c.mlp_width(i), act)
        if not c.enable_moe_block:
            return dense
        experts, k, width = c.num_experts or 0, c.top_k_experts or 0, c.moe_intermediate_size or 0  # the config has all
        gate = NormedTopKGate(c.hidden_size, experts, k, eps=c.rms_norm_eps)
        norms = {name: self.make_norm() for name in ("norm", "end", "shared_norm", "shared_end")}
        return NormedMixture(gate, GatedExperts(experts, c.hidden_size, width, act), dense, **norms)

    def make_block(self, i: int) -> nn.Module:
        c, third = self.config, {}
        if c.hidden_size_per_layer_input:
            branch = PerLayerBranch(c.hidden_size, c.hidden_size_per_layer_input, i, activation(c.hidden_act))
            third = {"extra": branch, "end3": self.make_norm()}
        norm2 = nn.Identity() if c.enable_moe_block else self.make_norm()  # a mixture beside an MLP has its own
        parts = (self.make_norm(), self.make_attention(i), norm2, self.make_mlp(i), self.make_norm(), self.make_norm())
        return ThirdBranchBlock(*parts, **third)

    @classmethod
    def weight_map(cls, config: Gemma4Config) -> WeightMap:  # type: ignore[override]
        ours, theirs = "blocks.{i}.", "model.layers.{i}."
        borrowers = [i for i in range(config.num_hidden_layers) if config.borrows(i)]
        unread = ("k_proj", "v_proj", "k_norm", "v_norm")  # released files hold these for every layer
        return (
            super()
            .weight_map(config)
            .plus(
                rule("embed.per_layer", "model.embed_tokens_per_layer"),
                rule("embed.projection", "model.per_layer_model_projection"),
                rule("embed.norm", "model.per_layer_projection_norm"),
                rule(ours + "extra.gate_proj", theirs + "per_layer_input_gate"),
                rule(ours + "extra.up_proj", theirs + "per_layer_projection"),
                rule(ours + "end3", theirs + "post_per_layer_input_norm"),
                rule(ours + "layer_scalar", theirs + "layer_scalar"),
                *(mixture_rules(ours, theirs, config.moe_intermediate_size or 0) if config.enable_moe_block else ()),
                ignore=tuple(f"*layers.{i}.self_attn.{name}.*" for i in borrowers for name in unread),
            )
        )


def mixture_rules(ours: str, theirs: str, width: int) -> list[Rule]:
    """Rules for a mixture beside an MLP; experts are stacked in the files, and gate and up are one tensor."""
    mlp, experts = ours + "mlp.", theirs + "experts."
    return [
        rule(mlp + "gate", theirs + "router.proj"),
        rule(mlp + "gate.scale", theirs + "router.scale"),
        rule(mlp + "gate.expert_scale", theirs + "router.per_expert_scale"),
        rule(
            [mlp + "experts.gate_proj.weight", mlp + "experts.up_proj.weight"],
            experts + "gate_up_proj",
            Fused(width, width, dim=1),
        ),
        rule(mlp + "experts.down_proj.weight", experts + "down_proj"),
        rule(mlp + "shared", theirs + "mlp"),
        rule(mlp + "shared_norm", theirs + "pre_feedforward_layernorm"),
        rule(mlp + "shared_end", theirs + "post_feedforward_layernorm_1"),
        rule(mlp + "norm", theirs + "pre_feedforward_layernorm_2"),
        rule(mlp + "end", theirs + "post_feedforward_layernorm_2"),
    ]
