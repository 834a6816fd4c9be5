"""GLM-130B (Zeng et al. 2022), from GLM: rotary positions of one kind in place of two learned ones; a heavier stream
that is normalised (DeepNorm, Wang et al. 2022); GeGLU.

A token that fills [MASK] has the mask's position; after [gMASK] positions run on. Where both occur, [gMASK] counts.
"""

from typing import Any

from torch import nn

from groundup.layers import init
from groundup.layers.activations import activation
from groundup.layers.attention import Attention
from groundup.layers.block import HeavyStreamBlock
from groundup.layers.feedforward import GatedMLP
from groundup.layers.norms import LayerNorm
from groundup.layers.rope import Rope
from groundup.models.configs.glm_130b import GLM130BConfig
from groundup.models.text.blank_filling import BlankFilling
from groundup.weights import Fused, FusedHeads, WeightMap, rule


class GLM130B(BlankFilling):
    """GLM-130B."""

    Config = GLM130BConfig
    config: GLM130BConfig

    @property
    def paired(self) -> bool:
        return False

    @property
    def prior_mask(self) -> int | None:
        return self.config.gmask_token_id

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.config.hidden_size // self.config.num_attention_heads

    def make_norm(self) -> nn.Module:
        return LayerNorm(self.config.hidden_size, self.config.layer_norm_epsilon)

    def make_rope(self, i: int) -> Any:
        """Rotary positions of layer i."""
        return Rope(self.head_dim)

    def make_attention(self, i: int) -> nn.Module:
        c = self.config
        return Attention(
            c.hidden_size, c.num_attention_heads, bias=True, rope=self.make_rope(i), mask=self.make_mask(i)
        )

    def make_mlp(self, i: int) -> nn.Module:
        return GatedMLP(self.config.hidden_size, self.config.intermediate_size, activation("gelu"), bias=True)

    def make_block(self, i: int) -> nn.Module:
        parts = (self.make_norm(), self.make_attention(i), self.make_norm(), self.make_mlp(i))
        return HeavyStreamBlock(*parts, alpha=(2 * self.config.num_hidden_layers) ** 0.5)

    def init_weights(self) -> None:
        super().init_weights()
        init.deepnorm(self, (2 * self.config.num_hidden_layers) ** -0.5)

    @classmethod
    def weight_map(cls, config: GLM130BConfig) -> WeightMap:
        ours, theirs, inner = "blocks.{i}.", "transformer.layers.{i}.", config.intermediate_size
        return WeightMap(
            rule("embed.tokens", "transformer.word_embeddings"),
            rule(ours + "norm1", theirs + "input_layernorm"),
            rule(
                [ours + f"attn.{p}_proj" for p in "qkv"],
                theirs + "attention.query_key_value",
                FusedHeads(config.num_attention_heads),
            ),
            rule(ours + "attn.o_proj", theirs + "attention.dense"),
            rule(ours + "norm2", theirs + "post_attention_layernorm"),
            *cls.mlp_rules(ours + "mlp.", theirs + "mlp.", inner),
            rule("norm", "transformer.final_layernorm"),
            rule("lm_head", "lm_head"),
            ignore=("*rotary_emb.inv_freq",),
            i=config.num_hidden_layers,
        )

    @classmethod
    def mlp_rules(cls, ours: str, theirs: str, inner: int) -> Any:
        """What the MLP's tensors are called."""
        first = [ours + "up_proj", ours + "gate_proj"]
        return (
            rule(first, theirs + "dense_h_to_4h", Fused(inner, inner)),
            rule(ours + "down_proj", theirs + "dense_4h_to_h"),
        )
