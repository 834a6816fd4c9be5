"""Phi-1 and Phi-1.5 (Gunasekar et al. 2023; Li et al. 2023) and Phi-2, from GPT-J: half of each head is turned, its
halves paired; biases in attention.
"""

from typing import Any

from torch import nn

from groundup.layers.attention import Attention
from groundup.layers.norms import LayerNorm
from groundup.layers.rope import Rope
from groundup.models.configs.phi import PhiConfig
from groundup.models.text.gptj import GPTJ
from groundup.models.text.llama import rope_scaling
from groundup.weights import WeightMap, rule


class Phi(GPTJ):
    """Phi-1, Phi-1.5 and Phi-2."""

    Config = PhiConfig
    config: PhiConfig  # type: ignore[assignment]

    def make_rope(self, i: int) -> Rope:
        c, rope = self.config, self.config.rope_parameters
        turned = int(c.hidden_size // c.num_attention_heads * rope.partial_rotary_factor)
        return Rope(turned, rope.rope_theta, scaling=rope_scaling(rope, c.max_position_embeddings))

    def make_attention(self, i: int) -> nn.Module:
        c = self.config
        settings: dict[str, Any] = {"rope": self.make_rope(i), "mask": self.make_mask(i), "dropout": c.attn_pdrop}
        if c.qk_layernorm:
            norms = (LayerNorm(c.hidden_size // c.num_attention_heads, c.layer_norm_epsilon) for _ in "qk")
            settings |= dict(zip(("q_norm", "k_norm"), norms, strict=True))
        return Attention(c.hidden_size, c.num_attention_heads, c.num_key_value_heads, bias=True, **settings)

    @classmethod
    def weight_map(cls, config: PhiConfig) -> WeightMap:  # type: ignore[override]
        ours, theirs = "blocks.{i}.", "model.layers.{i}."
        return WeightMap(
            rule("embed.tokens", "model.embed_tokens"),
            rule(ours + "norm1", theirs + "input_layernorm"),
            *(rule(ours + f"attn.{p}_proj", theirs + f"self_attn.{p}_proj") for p in "qkv"),
            *(rule(ours + f"attn.{p}_norm", theirs + f"self_attn.{p}_layernorm") for p in "qk"),
            rule(ours + "attn.o_proj", theirs + "self_attn.dense"),
            rule(ours + "mlp.up_proj", theirs + "mlp.fc1"),
            rule(ours + "mlp.down_proj", theirs + "mlp.fc2"),
            rule("norm", "model.final_layernorm"),
            rule("lm_head", "lm_head"),
            ignore=("*.rotary_emb.inv_freq",),
            i=config.num_hidden_layers,
        )
