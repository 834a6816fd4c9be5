"""Cohere 2 (Command R7B 2024, Command A 2025, Tiny Aya 2026), from Llama: attention and MLP side by side behind one
LayerNorm without a bias; three layers of four see a window and turn neighbours, the fourth sees all and knows no
positions; the logits have a factor, and the head is the embedding.
"""

from typing import Any

from torch import Tensor, nn

from groundup.layers.block import OneNormParallelBlock
from groundup.layers.masks import Causal, MaskRule
from groundup.layers.norms import LayerNorm
from groundup.layers.rope import Rope
from groundup.models.configs.cohere2 import Cohere2Config
from groundup.models.configs.layer_kinds import FULL
from groundup.models.text.llama import Llama, rope_scaling
from groundup.weights import WeightMap, rule


class Cohere2(Llama):
    """Command R7B, Command A and Tiny Aya."""

    Config = Cohere2Config
    config: Cohere2Config  # type: ignore[assignment]

    def make_norm(self) -> nn.Module:
        return LayerNorm(self.config.hidden_size, self.config.layer_norm_eps, bias=False)

    def make_final_norm(self) -> nn.Module:
        c = self.config
        return ScaledLayerNorm(c.hidden_size, c.layer_norm_eps, c.logit_scale)

    def make_mask(self, i: int) -> MaskRule:
        return Causal(self.config.window(i))

    def make_rope(self, i: int) -> Rope:
        rope = self.config.rope_parameters
        scaling = rope_scaling(rope, self.config.max_position_embeddings)
        return Rope(self.head_dim, rope.rope_theta, interleaved=True, scaling=scaling)

    def make_attention(self, i: int, **changes: Any) -> nn.Module:
        nowhere = {"rope": None} if self.config.kind(i) == FULL else {}
        return super().make_attention(i, **(nowhere | changes))

    def make_block(self, i: int) -> nn.Module:
        return OneNormParallelBlock(self.make_norm(), self.make_attention(i), self.make_mlp(i))

    @classmethod
    def weight_map(cls, config: Cohere2Config) -> WeightMap:  # type: ignore[override]
        ours, theirs = "blocks.{i}.", "model.layers.{i}."
        return WeightMap(
            rule("embed.tokens", "model.embed_tokens"),
            rule(ours + "norm1", theirs + "input_layernorm"),
            rule(ours + "attn", theirs + "self_attn"),
            rule(ours + "mlp", theirs + "mlp"),
            rule("norm", "model.norm"),
            rule("lm_head", "lm_head"),
            ignore=("*.rotary_emb.inv_freq",),
            i=config.num_hidden_layers,
        )


class ScaledLayerNorm(LayerNorm):
    """LayerNorm without a bias whose result is multiplied by a number. Before a head this is a factor of the logits,
    and the head stays a plain matrix.
    """

    def __init__(self, dim: int, eps: float, factor: float):
        super().__init__(dim, eps, bias=False)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.factor
