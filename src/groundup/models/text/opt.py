"""OPT (Zhang et al. 2022), from GPT-2: ReLU in the MLP, a table of positions whose first two rows are never used.

The 350M model alone normalises after the sums instead of before the branches, and keeps token vectors of half the
width, projected up before the first block and down before the head.
"""

from torch import Tensor, nn

from groundup.layers import init
from groundup.layers.activations import activation
from groundup.layers.attention import Attention
from groundup.layers.block import Block, PostNormBlock
from groundup.layers.embedding import Embedding, PositionalEmbedding
from groundup.layers.feedforward import MLP
from groundup.layers.norms import LayerNorm, PlainLayerNorm
from groundup.models.configs.opt import OPTConfig
from groundup.models.text.gpt2 import GPT2
from groundup.weights import WeightMap, rule

OFFSET = 2
"""Rows of the position table before that of position 0: padding had its place there in training."""


class OPT(GPT2):
    """OPT, 125M to 175B."""

    Config = OPTConfig
    config: OPTConfig  # type: ignore[assignment]

    def make_embed(self) -> Embedding:
        c = self.config
        if c.narrow is None:
            return PositionalEmbedding(c.vocab_size, c.hidden_size, c.max_position_embeddings, offset=OFFSET)
        return NarrowEmbedding(c.vocab_size, c.hidden_size, c.max_position_embeddings, c.narrow)

    def make_norm(self) -> nn.Module:
        learned = self.config.layer_norm_elementwise_affine
        return LayerNorm(self.config.hidden_size) if learned else PlainLayerNorm(self.config.hidden_size)

    def make_final_norm(self) -> nn.Module | None:
        c = self.config
        norm = self.make_norm() if c.has_final_norm else None
        return norm if c.narrow is None else NarrowEnd(norm, c.hidden_size, c.narrow)

    def make_attention(self, i: int) -> nn.Module:
        c, mask = self.config, self.make_mask(i)
        return Attention(c.hidden_size, c.num_attention_heads, bias=c.enable_bias, mask=mask, dropout=c.attn_pdrop)

    def make_mlp(self, i: int) -> nn.Module:
        c = self.config
        return MLP(
            c.hidden_size, c.intermediate_size or 4 * c.hidden_size, activation(c.hidden_act), bias=c.enable_bias
        )

    def make_block(self, i: int) -> nn.Module:
        c = self.config
        parts = (self.make_norm(), self.make_attention(i), self.make_norm(), self.make_mlp(i))
        kind = Block if c.do_layer_norm_before else PostNormBlock
        return kind(*parts, attn_dropout=c.resid_pdrop, mlp_dropout=c.resid_pdrop)

    def make_head(self) -> nn.Module:
        return nn.Linear(self.config.narrow or self.config.hidden_size, self.config.vocab_size, bias=False)

    def init_weights(self) -> None:
        init.normal(self, self.config.initializer_range)

    @classmethod
    def weight_map(cls, config: OPTConfig) -> WeightMap:  # type: ignore[override]
        ours, top, theirs = "blocks.{i}.", "model.decoder.", "model.decoder.layers.{i}."
        projections = (rule("embed.proj", top + "project_in"), rule("norm.proj", top + "project_out"))
        return WeightMap(
            rule("embed.tokens", top + "embed_tokens"),
            rule("embed.positions", top + "embed_positions"),
            rule(ours + "norm1", theirs + "self_attn_layer_norm"),
            *(rule(ours + f"attn.{p}_proj", theirs + f"self_attn.{p}_proj") for p in "qkv"),
            rule(ours + "attn.o_proj", theirs + "self_attn.out_proj"),
            rule(ours + "norm2", theirs + "final_layer_norm"),
            rule(ours + "mlp.up_proj", theirs + "fc1"),
            rule(ours + "mlp.down_proj", theirs + "fc2"),
            rule("norm" if config.narrow is None else "norm.norm", top + "final_layer_norm"),
            *(() if config.narrow is None else projections),
            rule("lm_head", "lm_head"),
            prefix="model.",
            i=config.num_hidden_layers,
        )


class NarrowEmbedding(PositionalEmbedding):
    """Token vectors of another width, projected to that of the stream, plus a learned vector per position.

    Vectors that come in place of ids are those of the stream.
    """

    def __init__(self, num_embeddings: int, dim: int, max_positions: int, width: int):
        super().__init__(num_embeddings, dim, max_positions, offset=OFFSET)
        self.tokens = nn.Embedding(num_embeddings, width)
        self.proj = nn.Linear(width, dim, bias=False)

    def vectors(self, x: Tensor) -> Tensor:
        return x if x.is_floating_point() else self.proj(self.tokens(x))


class NarrowEnd(nn.Module):
    """From the stream to the width of the token vectors, behind a norm where there is one."""

    def __init__(self, norm: nn.Module | None, dim: int, width: int):
        super().__init__()
        self.norm = norm
        self.proj = nn.Linear(dim, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x if self.norm is None else self.norm(x))
