"""Falcon (Almazrouei et al. 2023), from GPT-2: rotary positions, attention and MLP side by side, one key-value head for
all query heads (7B) or one for each group of them (40B, 180B, Falcon 2 11B), no biases.

RW 1B, the trial of the RefinedWeb data (Penedo et al. 2023), has GPT-2's blocks with linear biases, to which it applies
the 1 / sqrt(d) of the scores too, and which it rounds to bfloat16. Files hold queries, keys and values in one tensor,
group by group.
"""

from typing import Any

from torch import nn

from groundup.layers import init
from groundup.layers.activations import activation
from groundup.layers.attention import Attention
from groundup.layers.block import Block, OneNormParallelBlock, ParallelBlock
from groundup.layers.embedding import Embedding
from groundup.layers.feedforward import MLP
from groundup.layers.position_bias import RoundedALiBi
from groundup.layers.rope import Rope
from groundup.models.configs.falcon import FalconConfig
from groundup.models.text.gpt2 import GPT2
from groundup.models.text.llama import rope_scaling
from groundup.weights import FusedHeads, WeightMap, rule


class Falcon(GPT2):
    """Falcon RW 1B, 7B, 40B, 180B and Falcon 2 11B."""

    Config = FalconConfig
    config: FalconConfig  # type: ignore[assignment]

    def make_embed(self) -> Embedding:
        return Embedding(self.config.vocab_size, self.config.hidden_size)

    def make_positions(self, i: int) -> dict[str, Any]:
        """How attention in layer i knows of positions."""
        c = self.config
        head_dim, rope = c.hidden_size // c.num_attention_heads, c.rope_parameters
        if c.alibi:
            return {"position_bias": RoundedALiBi(c.num_attention_heads, scale=head_dim**-0.5)}
        return {"rope": Rope(head_dim, rope.rope_theta, scaling=rope_scaling(rope, c.max_position_embeddings))}

    def make_attention(self, i: int) -> nn.Module:
        c = self.config
        settings = {"bias": c.bias, "mask": self.make_mask(i), "dropout": c.attn_pdrop} | self.make_positions(i)
        return Attention(c.hidden_size, c.num_attention_heads, c.kv_heads, **settings)

    def make_mlp(self, i: int) -> nn.Module:
        c = self.config
        return MLP(c.hidden_size, c.intermediate_size or 4 * c.hidden_size, activation(c.hidden_act), bias=c.bias)

    def make_block(self, i: int) -> nn.Module:
        c, rates = self.config, {"attn_dropout": self.config.resid_pdrop, "mlp_dropout": self.config.resid_pdrop}
        if c.norms_in_block == 1:
            return OneNormParallelBlock(self.make_norm(), self.make_attention(i), self.make_mlp(i), **rates)
        kind = ParallelBlock if c.parallel_attn else Block
        return kind(self.make_norm(), self.make_attention(i), self.make_norm(), self.make_mlp(i), **rates)

    def init_weights(self) -> None:
        init.normal(self, self.config.initializer_range)

    @classmethod
    def weight_map(cls, config: FalconConfig) -> WeightMap:  # type: ignore[override]
        ours, theirs, c = "blocks.{i}.", "transformer.h.{i}.", config
        two = c.parallel_attn and c.norms_in_block == 2
        norm1, norm2 = ("ln_attn", "ln_mlp") if two else ("input_layernorm", "post_attention_layernorm")
        fused = FusedHeads(c.kv_heads, c.num_attention_heads // c.kv_heads)
        return WeightMap(
            rule("embed.tokens", "transformer.word_embeddings"),
            rule(ours + "norm1", theirs + norm1),
            rule(ours + "norm2", theirs + norm2),
            rule([ours + f"attn.{p}_proj" for p in "qkv"], theirs + "self_attention.query_key_value", fused),
            rule(ours + "attn.o_proj", theirs + "self_attention.dense"),
            rule(ours + "mlp.up_proj", theirs + "mlp.dense_h_to_4h"),
            rule(ours + "mlp.down_proj", theirs + "mlp.dense_4h_to_h"),
            rule("norm", "transformer.ln_f"),
            rule("lm_head", "lm_head"),
            prefix="transformer.",
            ignore=("*.rotary_emb.inv_freq",),
            i=c.num_hidden_layers,
        )
