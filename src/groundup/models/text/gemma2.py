"""Gemma 2 (Gemma team 2024), from Gemma: norms at both ends of each branch, layers in turns with a window and without,
grouped heads, and soft caps on the scores of attention and on the logits.
"""

from typing import Any

from torch import nn

from groundup.layers.block import SandwichBlock
from groundup.layers.masks import Causal, MaskRule
from groundup.layers.soft_cap import CappedAttentionCore, CappedLinear
from groundup.models.configs.gemma2 import Gemma2Config
from groundup.models.text.gemma import Gemma
from groundup.weights import WeightMap, rule


class Gemma2(Gemma):
    """Gemma 2, 2B, 9B and 27B."""

    Config = Gemma2Config
    config: Gemma2Config  # type: ignore[assignment]

    def make_mask(self, i: int) -> MaskRule:
        return Causal(self.config.window(i))

    def make_attention(self, i: int, **changes: Any) -> nn.Module:
        c = self.config
        attention = super().make_attention(i, **({"scale": c.query_pre_attn_scalar**-0.5} | changes))
        if c.attn_logit_softcapping is not None:
            core: Any = attention.core
            attention.core = CappedAttentionCore(c.attn_logit_softcapping, core.dropout, core.scale)
        return attention

    def make_block(self, i: int) -> nn.Module:
        parts = (self.make_norm(), self.make_attention(i), self.make_norm(), self.make_mlp(i))
        return SandwichBlock(*parts, self.make_norm(), self.make_norm())

    def make_head(self) -> nn.Module:
        c = self.config
        if c.final_logit_softcapping is None:
            return super().make_head()
        return CappedLinear(c.hidden_size, c.vocab_size, c.final_logit_softcapping)

    @classmethod
    def weight_map(cls, config: Gemma2Config) -> WeightMap:  # type: ignore[override]
        ours, theirs = "blocks.{i}.", "model.layers.{i}."
        return WeightMap(
            rule("embed.tokens", "model.embed_tokens"),
            rule(ours + "norm1", theirs + "input_layernorm"),
            rule(ours + "attn", theirs + "self_attn"),
            rule(ours + "end1", theirs + "post_attention_layernorm"),
            rule(ours + "norm2", theirs + "pre_feedforward_layernorm"),
            rule(ours + "mlp", theirs + "mlp"),
            rule(ours + "end2", theirs + "post_feedforward_layernorm"),
            rule("norm", "model.norm"),
            rule("lm_head", "lm_head"),
            ignore=("*.rotary_emb.inv_freq",),
            i=config.num_hidden_layers,
        )
