"""OpenELM (Mehta et al. 2024), from Llama: layers have widths of their own, few heads and a narrow MLP at the bottom,
many and a wide one at the top; RMSNorm over each head's queries and keys, whose gain all heads of a layer share; a tied
head. Files hold queries, keys and values in one tensor, gate and up projection in another.
"""

from typing import Any

from torch import nn

from groundup.layers.activations import activation
from groundup.layers.attention import Attention
from groundup.layers.feedforward import MLP, GatedMLP
from groundup.layers.norms import RMSNorm
from groundup.layers.rope import Rope
from groundup.models.configs.openelm import OpenELMConfig
from groundup.models.text.causal_lm import CausalLM
from groundup.weights import Fused, Rule, WeightMap, rule

EPS = 1e-6
"""Added to the mean square in every norm; no config tells it."""


class OpenELM(CausalLM):
    """OpenELM 270M, 450M, 1.1B, 3B."""

    Config = OpenELMConfig
    config: OpenELMConfig

    def make_norm(self) -> nn.Module:
        return RMSNorm(self.config.hidden_size, EPS)

    def make_rope(self, i: int) -> Rope:
        """Rotary positions of layer i."""
        return Rope(self.config.head_dim, self.config.rope_freq_constant)

    def make_attention(self, i: int) -> nn.Module:
        c = self.config
        norms: dict[str, Any] = {}
        if c.normalize_qk_projections:
            norms = {name: RMSNorm(c.head_dim, EPS) for name in ("q_norm", "k_norm")}
        sizes = (c.hidden_size, c.query_heads[i], c.key_value_heads[i], c.head_dim)
        return Attention(*sizes, rope=self.make_rope(i), mask=self.make_mask(i), **norms)

    def make_mlp(self, i: int) -> nn.Module:
        c = self.config
        kind = GatedMLP if c.ffn_with_glu else MLP
        return kind(c.hidden_size, c.mlp_widths[i], activation(c.hidden_act), bias=False)

    @classmethod
    def weight_map(cls, config: OpenELMConfig) -> WeightMap:
        ours, theirs = "blocks.{i}.", "transformer.layers.{i}."
        return WeightMap(
            rule("embed.tokens", "transformer.token_embeddings"),
            rule(ours + "norm1", theirs + "attn_norm"),
            rule(ours + "attn.q_norm", theirs + "attn.q_norm"),
            rule(ours + "attn.k_norm", theirs + "attn.k_norm"),
            rule(ours + "attn.o_proj", theirs + "attn.out_proj"),
            rule(ours + "norm2", theirs + "ffn_norm"),
            rule(ours + "mlp.down_proj", theirs + "ffn.proj_2"),
            *(fused for i in range(config.num_hidden_layers) for fused in fused_projections(config, i)),
            rule("norm", "transformer.norm"),
            rule("lm_head", "lm_head"),
            prefix="transformer.",
            i=config.num_hidden_layers,
        )


def fused_projections(config: OpenELMConfig, i: int) -> list[Rule]:
    """The tensors of layer i that hold several of ours, whose heights differ from layer to layer."""
    ours, theirs, width = f"blocks.{i}.", f"transformer.layers.{i}.", config.mlp_widths[i]
    queries, keys = (heads[i] * config.head_dim for heads in (config.query_heads, config.key_value_heads))
    ups = ["gate_proj", "up_proj"] if config.ffn_with_glu else ["up_proj"]
    return [
        rule([ours + f"attn.{p}_proj" for p in "qkv"], theirs + "attn.qkv_proj", Fused(queries, keys, keys)),
        rule([ours + f"mlp.{up}" for up in ups], theirs + "ffn.proj_1", Fused(*(width for _ in ups))),
    ]
