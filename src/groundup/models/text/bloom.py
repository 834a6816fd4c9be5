"""BLOOM (Le Scao et al. 2022), from GPT-2: attention with linear biases (ALiBi) in place of learned positions, and a
norm right after the embedding, which kept the training of the 104B pilot stable.

Its files hold queries, keys and values in one tensor, head by head.
"""

from torch import nn

from groundup.layers import init
from groundup.layers.attention import Attention
from groundup.layers.embedding import Embedding, NormedEmbedding
from groundup.layers.position_bias import ALiBi
from groundup.models.configs.bloom import BloomConfig
from groundup.models.text.gpt2 import GPT2
from groundup.weights import FusedHeads, WeightMap, rule


class Bloom(GPT2):
    """BLOOM, 560M to 176B."""

    Config = BloomConfig
    config: BloomConfig  # type: ignore[assignment]

    def make_embed(self) -> Embedding:
        return NormedEmbedding(self.config.vocab_size, self.config.hidden_size, self.make_norm())

    def make_attention(self, i: int) -> nn.Module:
        c, bias = self.config, ALiBi(self.config.num_attention_heads)
        settings = {"mask": self.make_mask(i), "position_bias": bias, "dropout": c.attn_pdrop}
        return Attention(c.hidden_size, c.num_attention_heads, bias=True, **settings)

    def init_weights(self) -> None:
        init.normal(self, self.config.initializer_range)

    @classmethod
    def weight_map(cls, config: BloomConfig) -> WeightMap:  # type: ignore[override]
        ours, theirs = "blocks.{i}.", "transformer.h.{i}."
        fused = FusedHeads(config.num_attention_heads)
        return WeightMap(
            rule("embed.tokens", "transformer.word_embeddings"),
            rule("embed.norm", "transformer.word_embeddings_layernorm"),
            rule(ours + "norm1", theirs + "input_layernorm"),
            rule([ours + f"attn.{p}_proj" for p in "qkv"], theirs + "self_attention.query_key_value", fused),
            rule(ours + "attn.o_proj", theirs + "self_attention.dense"),
            rule(ours + "norm2", theirs + "post_attention_layernorm"),
            rule(ours + "mlp.up_proj", theirs + "mlp.dense_h_to_4h"),
            rule(ours + "mlp.down_proj", theirs + "mlp.dense_4h_to_h"),
            rule("norm", "transformer.ln_f"),
            rule("lm_head", "lm_head"),
            prefix="transformer.",
            i=config.num_hidden_layers,
        )
