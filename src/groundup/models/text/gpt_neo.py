"""GPT-Neo (Black et al. 2021), from GPT-2: every other layer sees a window of 256 tokens, GPT-3's pattern; no biases on
queries, keys and values, and scores that are not divided by sqrt(d).
"""

from torch import nn

from groundup.layers.attention import Attention
from groundup.layers.masks import Causal, MaskRule
from groundup.models.configs.gpt_neo import GPTNeoConfig
from groundup.models.text.gpt2 import GPT2
from groundup.weights import WeightMap, rule


class GPTNeo(GPT2):
    """GPT-Neo, 125M to 2.7B."""

    Config = GPTNeoConfig
    config: GPTNeoConfig  # type: ignore[assignment]

    def make_mask(self, i: int) -> MaskRule:
        return Causal(self.config.window(i))

    def make_attention(self, i: int) -> nn.Module:
        c, mask = self.config, self.make_mask(i)
        settings = {"mask": mask, "dropout": c.attn_pdrop, "scale": 1.0}
        return Attention(c.hidden_size, c.num_attention_heads, bias=False, out_bias=True, **settings)

    @classmethod
    def weight_map(cls, config: GPTNeoConfig) -> WeightMap:  # type: ignore[override]
        ours, theirs = "blocks.{i}.", "transformer.h.{i}."
        return WeightMap(
            rule("embed.tokens", "transformer.wte"),
            rule("embed.positions", "transformer.wpe"),
            rule(ours + "norm1", theirs + "ln_1"),
            *(rule(ours + f"attn.{p}_proj", theirs + f"attn.attention.{p}_proj") for p in "qkv"),
            rule(ours + "attn.o_proj", theirs + "attn.attention.out_proj"),
            rule(ours + "norm2", theirs + "ln_2"),
            rule(ours + "mlp.up_proj", theirs + "mlp.c_fc"),
            rule(ours + "mlp.down_proj", theirs + "mlp.c_proj"),
            rule("norm", "transformer.ln_f"),
            rule("lm_head", "lm_head"),
            prefix="transformer.",
            ignore=("*.attn.attention.bias", "*.attn.attention.masked_bias"),
            i=config.num_hidden_layers,
        )
