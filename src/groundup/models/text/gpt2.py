"""GPT-2 (Radford et al. 2019): learned positions, LayerNorm before each branch and at the end, an ungated MLP with
GELU, biases everywhere, the head tied to the embedding. Residual projections begin smaller by sqrt(2 * layers).
"""

from torch import nn

from groundup.layers import init
from groundup.layers.activations import activation
from groundup.layers.attention import Attention
from groundup.layers.block import Block
from groundup.layers.embedding import Embedding, PositionalEmbedding
from groundup.layers.feedforward import MLP
from groundup.layers.norms import LayerNorm
from groundup.models.configs.gpt2 import GPT2Config
from groundup.models.text.causal_lm import CausalLM
from groundup.weights import Chain, Fused, Transpose, WeightMap, rule


class GPT2(CausalLM):
    """GPT-2."""

    Config = GPT2Config
    config: GPT2Config

    def make_embed(self) -> Embedding:
        c = self.config
        return PositionalEmbedding(c.vocab_size, c.hidden_size, c.max_position_embeddings, c.embd_pdrop)

    def make_norm(self) -> nn.Module:
        return LayerNorm(self.config.hidden_size, self.config.layer_norm_epsilon)

    def make_attention(self, i: int) -> nn.Module:
        c = self.config
        return Attention(c.hidden_size, c.num_attention_heads, bias=True, mask=self.make_mask(i), dropout=c.attn_pdrop)

    def make_mlp(self, i: int) -> nn.Module:
        c = self.config
        return MLP(c.hidden_size, c.intermediate_size or 4 * c.hidden_size, activation(c.hidden_act))

    def make_block(self, i: int) -> nn.Module:
        c = self.config
        mlp_dropout = c.resid_pdrop if c.mlp_pdrop is None else c.mlp_pdrop
        return Block(
            *(self.make_norm(), self.make_attention(i), self.make_norm(), self.make_mlp(i)),
            attn_dropout=c.resid_pdrop,
            mlp_dropout=mlp_dropout,
        )

    def init_weights(self) -> None:
        super().init_weights()
        ends = [m for name, m in self.named_modules() if name.endswith(("attn.o_proj", "mlp.down_proj"))]
        init.scale_residual(ends, num_branches=2 * self.config.num_hidden_layers)

    @classmethod
    def weight_map(cls, config: GPT2Config) -> WeightMap:
        ours, theirs, d = "blocks.{i}.", "transformer.h.{i}.", config.heads_width
        return WeightMap(
            rule("embed.tokens", "transformer.wte"),
            rule("embed.positions", "transformer.wpe"),
            rule(ours + "norm1", theirs + "ln_1"),
            rule([ours + f"attn.{p}_proj" for p in "qkv"], theirs + "attn.c_attn", Chain(Transpose(), Fused(d, d, d))),
            rule(ours + "attn.o_proj", theirs + "attn.c_proj", Transpose()),
            rule(ours + "norm2", theirs + "ln_2"),
            rule(ours + "mlp.up_proj", theirs + "mlp.c_fc", Transpose()),
            rule(ours + "mlp.down_proj", theirs + "mlp.c_proj", Transpose()),
            rule("norm", "transformer.ln_f"),
            rule("lm_head", "lm_head"),
            prefix="transformer.",
            ignore=("*h.*.attn.bias", "*h.*.attn.masked_bias"),  # causal masks that old checkpoints carry
            i=config.num_hidden_layers,
        )
