"""PanGu-alpha (Zeng et al. 2021), from GPT-2: the last block is a query layer. Its queries are no tokens but learned
vectors of the position whose token is to be told; GPT-2's last norm stands before it, and none after it.
"""

from torch import nn

from groundup.layers.attentions.next_position import NextPositionAttention
from groundup.layers.block import NormedStreamBlock
from groundup.models.configs.pangu import PanguConfig
from groundup.models.text.gpt2 import GPT2
from groundup.weights import WeightMap, rule


class Pangu(GPT2):
    """PanGu-alpha, 350M to 200B."""

    Config = PanguConfig
    config: PanguConfig  # type: ignore[assignment]

    def make_final_norm(self) -> nn.Module | None:
        return None

    def make_attention(self, i: int) -> nn.Module:
        c = self.config
        if i < c.num_hidden_layers - 1:
            return super().make_attention(i)
        sizes = (c.hidden_size, c.num_attention_heads, c.max_position_embeddings)
        return NextPositionAttention(*sizes, bias=True, mask=self.make_mask(i), dropout=c.attn_pdrop)

    def make_block(self, i: int) -> nn.Module:
        if i < self.config.num_hidden_layers - 1:
            return super().make_block(i)
        parts = (self.make_norm(), self.make_attention(i), self.make_norm(), self.make_mlp(i))
        rates = {"attn_dropout": self.config.resid_pdrop, "mlp_dropout": self.config.resid_pdrop}
        return NormedStreamBlock(self.make_norm(), *parts, **rates)

    @classmethod
    def weight_map(cls, config: PanguConfig) -> WeightMap:  # type: ignore[override]
        ours, theirs, last = "blocks.{i}.", "transformer.h.{i}.", f"blocks.{config.num_hidden_layers - 1}."
        return WeightMap(
            rule("embed.tokens", "transformer.wte"),
            rule("embed.positions", "transformer.wpe"),
            rule(last + "attn.queries", "transformer.wqe"),
            rule(last + "norm0", "transformer.ln_f"),
            rule(ours + "norm1", theirs + "ln_1"),
            *(rule(ours + f"attn.{p}_proj", theirs + f"attn.{p}_proj") for p in "qkv"),
            rule(ours + "attn.o_proj", theirs + "attn.c_proj"),
            rule(ours + "norm2", theirs + "ln_2"),
            rule(ours + "mlp.up_proj", theirs + "mlp.c_fc"),
            rule(ours + "mlp.down_proj", theirs + "mlp.c_proj"),
            rule("lm_head", "lm_head"),
            prefix="transformer.",
            ignore=("*h.*.attn.bias", "*h.*.attn.masked_bias"),
            i=config.num_hidden_layers,
        )
