"""ChatGLM2-6B, ChatGLM3-6B (Zeng et al. 2023) and GLM-4-9B (Team GLM 2024) as they were released: the computation of
`glm`, theta times `rope_ratio`, dropout of the branches; files hold queries, keys and values in one tensor.

    ChatGLM2   SwiGLU, RMSNorm and shared key-value heads in place of ChatGLM's GELU, LayerNorm and two positions
    ChatGLM3   the same shape, other data, a chat form with tools
    GLM-4      40 layers, 151,552 tokens
"""

from dataclasses import replace
from typing import Any

from torch import nn

from groundup.layers.block import Block
from groundup.layers.rope import Rope
from groundup.models.configs.chatglm import ChatGLMConfig
from groundup.models.text.glm import Glm
from groundup.weights import Fused, WeightMap, rule


class ChatGLM(Glm):
    """ChatGLM2, ChatGLM3, GLM-4."""

    Config = ChatGLMConfig
    config: ChatGLMConfig  # type: ignore[assignment]

    def make_rope(self, i: int) -> Rope:
        rope = super().make_rope(i)
        return replace(rope, theta=rope.theta * self.config.rope_ratio)

    def make_attention(self, i: int, **changes: Any) -> nn.Module:
        c = self.config
        biases = {"bias": c.attention_bias or c.mlp_bias, "out_bias": c.mlp_bias}
        return super().make_attention(i, **(biases | changes))

    def make_block(self, i: int) -> nn.Module:
        parts = (self.make_norm(), self.make_attention(i), self.make_norm(), self.make_mlp(i))
        return Block(*parts, attn_dropout=self.config.resid_pdrop, mlp_dropout=self.config.resid_pdrop)

    @classmethod
    def weight_map(cls, config: ChatGLMConfig) -> WeightMap:  # type: ignore[override]
        ours, theirs, inner = "blocks.{i}.", "transformer.encoder.layers.{i}.", config.intermediate_size
        query, key = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        qkv = [ours + f"attn.{p}_proj" for p in "qkv"]
        return WeightMap(
            rule("embed.tokens", "transformer.embedding.word_embeddings"),
            rule(ours + "norm1", theirs + "input_layernorm"),
            rule(qkv, theirs + "self_attention.query_key_value", Fused(query, key, key)),
            rule(ours + "attn.o_proj", theirs + "self_attention.dense"),
            rule(ours + "norm2", theirs + "post_attention_layernorm"),
            rule([ours + "mlp.gate_proj", ours + "mlp.up_proj"], theirs + "mlp.dense_h_to_4h", Fused(inner, inner)),
            rule(ours + "mlp.down_proj", theirs + "mlp.dense_4h_to_h"),
            rule("norm", "transformer.encoder.final_layernorm"),
            rule("lm_head", "transformer.output_layer"),
            ignore=("transformer.rotary_pos_emb.inv_freq",),
            i=config.num_hidden_layers,
        )
