"""Llama (Touvron et al. 2023), from GPT-2: RMSNorm, rotary positions, a SwiGLU MLP, no biases, a head of its own.
Llama 2 70B and Llama 3 share each key-value head among several query heads; Llama 3.1 stretches the rotary wavelengths.
"""

from typing import Any

from torch import nn

from groundup.layers.activations import activation
from groundup.layers.attention import Attention
from groundup.layers.feedforward import GatedMLP
from groundup.layers.norms import RMSNorm
from groundup.layers.rope import LinearScaling, Llama3Scaling, Rope, Scaling
from groundup.layers.rotary_scaling import DynamicNTKScaling, LongRopeScaling, YarnScaling
from groundup.models.configs.llama import LlamaConfig, RopeParameters
from groundup.models.text.causal_lm import CausalLM
from groundup.weights import WeightMap, rule


class Llama(CausalLM):
    """Llama 1 to 3."""

    Config = LlamaConfig
    config: LlamaConfig

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.config.head_dim or self.config.hidden_size // self.config.num_attention_heads

    def make_norm(self) -> nn.Module:
        return RMSNorm(self.config.hidden_size, self.config.rms_norm_eps)

    def make_rope(self, i: int) -> Rope:
        """Rotary positions of layer i."""
        rope = self.config.rope_parameters
        turned = int(self.head_dim * rope.partial_rotary_factor)
        return Rope(turned, rope.rope_theta, scaling=rope_scaling(rope, self.config.max_position_embeddings))

    def make_attention(self, i: int, **changes: Any) -> nn.Module:
        """Layer i's attention; a descendant names what it has otherwise."""
        c = self.config
        settings = {
            "bias": c.attention_bias,
            "rope": self.make_rope(i),
            "mask": self.make_mask(i),
            "dropout": c.attention_dropout,
        }
        sizes = (c.hidden_size, c.num_attention_heads, c.num_key_value_heads, self.head_dim)
        return Attention(*sizes, **(settings | changes))

    def make_mlp(self, i: int) -> nn.Module:
        c = self.config
        return GatedMLP(c.hidden_size, c.intermediate_size, activation(c.hidden_act), bias=c.mlp_bias)

    @classmethod
    def weight_map(cls, config: LlamaConfig) -> WeightMap:
        return WeightMap(
            rule("embed.tokens", "model.embed_tokens"),
            rule("blocks.{i}.attn", "model.layers.{i}.self_attn"),
            rule("blocks.{i}.norm1", "model.layers.{i}.input_layernorm"),
            rule("blocks.{i}.norm2", "model.layers.{i}.post_attention_layernorm"),
            rule("blocks.{i}.mlp", "model.layers.{i}.mlp"),
            rule("norm", "model.norm"),
            rule("lm_head", "lm_head"),
            ignore=("*.rotary_emb.inv_freq",),
            i=config.num_hidden_layers,
        )


def rope_scaling(rope: RopeParameters, context: int) -> Scaling | None:
    """How the frequencies are changed, from config.json's words; `context` is max_position_embeddings."""
    original = rope.original_max_position_embeddings or context
    factor = rope.factor or context / original
    match rope.rope_type:
        case "linear":
            return LinearScaling(factor)
        case "dynamic":
            return DynamicNTKScaling(factor, context)
        case "yarn":
            names = ("beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate")
            return YarnScaling(factor, original, **{name: getattr(rope, name) for name in names})
        case "llama3":
            return Llama3Scaling(factor, rope.low_freq_factor, rope.high_freq_factor, original)
        case "longrope":
            short, long = rope.short_factor or (), rope.long_factor or ()  # the config has made sure of both
            return LongRopeScaling(short, long, factor, original, rope.attention_factor)
    return None
