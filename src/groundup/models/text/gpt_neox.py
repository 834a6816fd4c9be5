"""GPT-NeoX (Black et al. 2022), from GPT-2: rotary positions over a quarter of each head in place of learned ones,
attention and MLP side by side, a head of its own. Pythia (Biderman et al. 2023) is this family in ten sizes.

Its files hold queries, keys and values in one tensor, head by head.
"""

from typing import Any

from torch import nn

from groundup.layers import init
from groundup.layers.attention import Attention
from groundup.layers.block import Block, ParallelBlock
from groundup.layers.embedding import Embedding
from groundup.layers.rope import Rope
from groundup.models.configs.gpt_neox import GPTNeoXConfig
from groundup.models.text.gpt2 import GPT2
from groundup.models.text.llama import rope_scaling
from groundup.weights import FusedHeads, WeightMap, rule


class GPTNeoX(GPT2):
    """GPT-NeoX 20B and Pythia."""

    Config = GPTNeoXConfig
    config: GPTNeoXConfig  # type: ignore[assignment]

    def make_embed(self) -> Embedding:
        return Embedding(self.config.vocab_size, self.config.hidden_size, self.config.resid_pdrop)

    def make_rope(self, i: int) -> Rope:
        """Rotary positions of layer i, over a part of each head."""
        c, rope = self.config, self.config.rope_parameters
        turned = int(c.hidden_size // c.num_attention_heads * rope.partial_rotary_factor)
        return Rope(turned, rope.rope_theta, scaling=rope_scaling(rope, c.max_position_embeddings))

    def make_attention(self, i: int) -> nn.Module:
        c = self.config
        settings: dict[str, Any] = {"rope": self.make_rope(i), "mask": self.make_mask(i), "dropout": c.attn_pdrop}
        return Attention(c.hidden_size, c.num_attention_heads, bias=c.attention_bias, **settings)

    def make_block(self, i: int) -> nn.Module:
        c = self.config
        parts = (self.make_norm(), self.make_attention(i), self.make_norm(), self.make_mlp(i))
        kind = ParallelBlock if c.use_parallel_residual else Block
        return kind(*parts, attn_dropout=c.resid_pdrop, mlp_dropout=c.resid_pdrop)

    def init_weights(self) -> None:
        init.normal(self, self.config.initializer_range)

    @classmethod
    def weight_map(cls, config: GPTNeoXConfig) -> WeightMap:  # type: ignore[override]
        ours, theirs = "blocks.{i}.", "gpt_neox.layers.{i}."
        fused = FusedHeads(config.num_attention_heads)
        return WeightMap(
            rule("embed.tokens", "gpt_neox.embed_in"),
            rule(ours + "norm1", theirs + "input_layernorm"),
            rule([ours + f"attn.{p}_proj" for p in "qkv"], theirs + "attention.query_key_value", fused),
            rule(ours + "attn.o_proj", theirs + "attention.dense"),
            rule(ours + "norm2", theirs + "post_attention_layernorm"),
            rule(ours + "mlp.up_proj", theirs + "mlp.dense_h_to_4h"),
            rule(ours + "mlp.down_proj", theirs + "mlp.dense_4h_to_h"),
            rule("norm", "gpt_neox.final_layer_norm"),
            rule("lm_head", "embed_out"),
            ignore=("*.attention.bias", "*.attention.masked_bias", "*.rotary_emb.inv_freq"),
            i=config.num_hidden_layers,
        )
