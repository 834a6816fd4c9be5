"""Qwen3-Next (Qwen team 2025), from Llama by way of Qwen3-MoE: a hybrid, whose layers remember in two ways.

- Three layers of four have a gated DeltaNet in the place of attention: a memory of one size, however long the text.
- The fourth has attention with gates; a quarter of each head is turned, queries and keys are normalised.
- Gains of norms are 1 + w, as in Gemma, but for the norm inside the DeltaNet.
- The MLP is 10 of 512 narrow experts, whose weights sum to 1, and a shared one with a sigmoid, as in Qwen2-MoE.

The layer that predicts a second token (`mtp` in the files) is left out.
"""

from typing import Any, ClassVar

from torch import nn

from groundup.layers.attentions.gated import GatedAttention
from groundup.layers.attentions.gated_delta import GatedDeltaNet
from groundup.layers.norms import OffsetRMSNorm
from groundup.models.configs.qwen3_next import Qwen3NextConfig
from groundup.models.text.llama import Llama
from groundup.models.text.mixtral import stacked_experts
from groundup.models.text.qwen2_moe import mixture_with_shared
from groundup.weights import Rule, WeightMap, WithinHeads, rule


class Qwen3Next(Llama):
    """Qwen3-Next-80B-A3B."""

    Config = Qwen3NextConfig
    config: Qwen3NextConfig  # type: ignore[assignment]
    within: ClassVar[dict[str, str]] = {}
    """How this model is called as a part of a larger one: see WeightMap."""
    left_out: ClassVar[dict[str, str]] = {"mtp.*": "the layers that predict a second token"}
    """What the files hold and this model has not."""

    def make_norm(self) -> nn.Module:
        return OffsetRMSNorm(self.config.hidden_size, self.config.rms_norm_eps)

    def make_attention(self, i: int, **changes: Any) -> nn.Module:
        return self.make_memory() if self.config.kinds[i] == "linear_attention" else self.make_gated(i)

    def make_memory(self) -> nn.Module:
        """A gated DeltaNet."""
        c = self.config
        heads = (c.linear_num_value_heads, c.linear_num_key_heads, c.linear_value_head_dim, c.linear_key_head_dim)
        return GatedDeltaNet(c.hidden_size, *heads, conv_size=c.linear_conv_kernel_dim, eps=c.rms_norm_eps)

    def make_gated(self, i: int) -> nn.Module:
        """Attention with gates."""
        c, d = self.config, self.head_dim
        norms: dict[str, Any] = {name: OffsetRMSNorm(d, c.rms_norm_eps) for name in ("q_norm", "k_norm")}
        settings = {"bias": c.attention_bias, "rope": self.make_rope(i), "dropout": c.attention_dropout}
        sizes = (c.hidden_size, c.num_attention_heads, c.num_key_value_heads, d)
        return GatedAttention(*sizes, mask=self.make_mask(i), **settings, **norms)

    def make_mlp(self, i: int) -> nn.Module:
        return mixture_with_shared(self.config) if self.config.has_experts(i) else super().make_mlp(i)

    @classmethod
    def weight_map(cls, config: Qwen3NextConfig) -> WeightMap:  # type: ignore[override]
        ours, theirs = "blocks.{i}.", "model.layers.{i}."
        rules = [
            rule("embed.tokens", "model.embed_tokens"),
            rule(ours + "norm1", theirs + "input_layernorm"),
            rule(ours + "norm2", theirs + "post_attention_layernorm"),
            rule(ours + "mlp", theirs + "mlp"),
            rule("norm", "model.norm"),
            rule("lm_head", "lm_head"),
            *cls.expert_rules(config),
        ]
        for i, kind in enumerate(config.kinds):
            names = (f"blocks.{i}.attn.", f"model.layers.{i}.")
            rules += cls.memory_rules(*names, config) if kind == "linear_attention" else gated_rules(*names, config)
        return WeightMap(*rules, within=cls.within, left_out=cls.left_out, i=config.num_hidden_layers)

    @classmethod
    def expert_rules(cls, config: Qwen3NextConfig) -> list[Rule]:
        """How the experts are called."""
        ours, theirs = "blocks.{i}.mlp.", "model.layers.{i}.mlp."
        return [
            rule(ours + "shared", theirs + "shared_expert"),
            rule(ours + "shared_gate", theirs + "shared_expert_gate"),
            *stacked_experts(theirs + "experts", config.num_experts),
        ]

    @classmethod
    def memory_rules(cls, ours: str, theirs: str, config: Qwen3NextConfig) -> list[Rule]:
        """How the parts of a DeltaNet are called: its projections lie fused, key head by key head."""
        c, theirs = config, theirs + "linear_attn."
        share = c.linear_num_value_heads // c.linear_num_key_heads
        d_k, d_v = c.linear_key_head_dim, share * c.linear_value_head_dim
        wide = WithinHeads(c.linear_num_key_heads, d_k, d_k, d_v, d_v)
        narrow = WithinHeads(c.linear_num_key_heads, share, share)
        return [
            rule([ours + f"{name}_proj" for name in ("q", "k", "v", "gate")], theirs + "in_proj_qkvz", wide),
            rule([ours + f"{name}_proj" for name in ("beta", "decay")], theirs + "in_proj_ba", narrow),
            *plain_memory_rules(ours, theirs),
        ]


def plain_memory_rules(ours: str, theirs: str) -> list[Rule]:
    """Parts of a DeltaNet that have names of their own."""
    names = {"conv": "conv1d", "a_log": "A_log", "dt_bias": "dt_bias", "norm": "norm", "o_proj": "out_proj"}
    return [rule(ours + own, theirs + name) for own, name in names.items()]


def gated_rules(ours: str, theirs: str, config: Qwen3NextConfig) -> list[Rule]:
    """Attention, where each head's queries lie beside its gates."""
    theirs, d = theirs + "self_attn.", config.head_dim or config.hidden_size // config.num_attention_heads
    both = rule([ours + "q_proj", ours + "gate_proj"], theirs + "q_proj", WithinHeads(config.num_attention_heads, d, d))
    return [both, *(rule(ours + name, theirs + name) for name in ("k_proj", "v_proj", "o_proj", "q_norm", "k_norm"))]
