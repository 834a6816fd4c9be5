"""GPT-J (Wang & Komatsuzaki 2021), from GPT-2: rotary positions over 64 features of each head, neighbours paired;
attention and MLP side by side behind one norm; no biases in attention; a head of its own, with a bias.
"""

from torch import nn

from groundup.layers import init
from groundup.layers.attention import Attention
from groundup.layers.block import OneNormParallelBlock
from groundup.layers.embedding import Embedding
from groundup.layers.rope import Rope
from groundup.models.configs.gptj import GPTJConfig
from groundup.models.text.gpt2 import GPT2
from groundup.weights import WeightMap, rule


class GPTJ(GPT2):
    """GPT-J 6B."""

    Config = GPTJConfig
    config: GPTJConfig  # type: ignore[assignment]

    def make_embed(self) -> Embedding:
        return Embedding(self.config.vocab_size, self.config.hidden_size, self.config.embd_pdrop)

    def make_rope(self, i: int) -> Rope:
        """Rotary positions of layer i."""
        c = self.config
        return Rope(c.rotary_dim or c.hidden_size // c.num_attention_heads, interleaved=True)

    def make_attention(self, i: int) -> nn.Module:
        c, rope, mask = self.config, self.make_rope(i), self.make_mask(i)
        return Attention(c.hidden_size, c.num_attention_heads, rope=rope, mask=mask, dropout=c.attn_pdrop)

    def make_block(self, i: int) -> nn.Module:
        rates = {"attn_dropout": self.config.resid_pdrop, "mlp_dropout": self.config.resid_pdrop}
        return OneNormParallelBlock(self.make_norm(), self.make_attention(i), self.make_mlp(i), **rates)

    def make_head(self) -> nn.Module:
        return nn.Linear(self.config.hidden_size, self.config.vocab_size)

    def init_weights(self) -> None:
        init.normal(self, self.config.initializer_range)

    @classmethod
    def weight_map(cls, config: GPTJConfig) -> WeightMap:  # type: ignore[override]
        ours, theirs = "blocks.{i}.", "transformer.h.{i}."
        return WeightMap(
            rule("embed.tokens", "transformer.wte"),
            rule(ours + "norm1", theirs + "ln_1"),
            *(rule(ours + f"attn.{p}_proj", theirs + f"attn.{p}_proj") for p in "qkv"),
            rule(ours + "attn.o_proj", theirs + "attn.out_proj"),
            rule(ours + "mlp.up_proj", theirs + "mlp.fc_in"),
            rule(ours + "mlp.down_proj", theirs + "mlp.fc_out"),
            rule("norm", "transformer.ln_f"),
            rule("lm_head", "lm_head"),
            prefix="transformer.",
            ignore=("*h.*.attn.bias", "*h.*.attn.masked_bias", "*h.*.attn.embed_positions"),
            i=config.num_hidden_layers,
        )
