"""GLM-4 (Zeng et al. 2024), from Llama 2: the first half of each head is turned, neighbour with neighbour; queries,
keys and values have biases; all query heads share two key-value heads. Files hold gate and up projection in one tensor.
"""

from dataclasses import replace
from typing import Any

from groundup.layers.rope import Rope
from groundup.models.configs.glm import GlmConfig
from groundup.models.text.llama import Llama
from groundup.weights import Fused, WeightMap, rule


class Glm(Llama):
    """GLM-4-9B in transformers' layout."""

    Config = GlmConfig
    config: GlmConfig  # type: ignore[assignment]

    def make_rope(self, i: int) -> Rope:
        return replace(super().make_rope(i), interleaved=True)

    def make_attention(self, i: int, **changes: Any) -> Any:
        return super().make_attention(i, **({"out_bias": False} | changes))

    @classmethod
    def weight_map(cls, config: GlmConfig) -> WeightMap:  # type: ignore[override]
        ours, theirs, inner = "blocks.{i}.", "model.layers.{i}.", config.intermediate_size
        return WeightMap(
            rule("embed.tokens", "model.embed_tokens"),
            rule(ours + "attn", theirs + "self_attn"),
            rule([ours + "mlp.gate_proj", ours + "mlp.up_proj"], theirs + "mlp.gate_up_proj", Fused(inner, inner)),
            rule(ours + "mlp.down_proj", theirs + "mlp.down_proj"),
            *cls.norm_rules(ours, theirs),
            rule("norm", "model.norm"),
            rule("lm_head", "lm_head"),
            ignore=("*.rotary_emb.inv_freq",),
            i=config.num_hidden_layers,
        )

    @classmethod
    def norm_rules(cls, ours: str, theirs: str) -> Any:
        """What the norms of a block are called."""
        return (
            rule(ours + "norm1", theirs + "input_layernorm"),
            rule(ours + "norm2", theirs + "post_attention_layernorm"),
        )
