"""OLMo 2 (OLMo team 2024), from Llama: each branch is normalised at its end in place of its beginning, so that the
residual stream enters the branches as it is; queries and keys are normalised by RMSNorm over all heads together.
"""

from typing import Any

from torch import nn

from groundup.layers.block import PostBranchNormBlock
from groundup.layers.norms import AllHeadsNorm, RMSNorm
from groundup.models.configs.olmo2 import Olmo2Config
from groundup.models.text.llama import Llama
from groundup.weights import WeightMap, rule


class Olmo2(Llama):
    """OLMo 2."""

    Config = Olmo2Config
    config: Olmo2Config  # type: ignore[assignment]

    def make_attention(self, i: int, **changes: Any) -> nn.Module:
        c, d = self.config, self.head_dim
        q_norm = AllHeadsNorm(RMSNorm(c.num_attention_heads * d, c.rms_norm_eps))
        k_norm = AllHeadsNorm(RMSNorm((c.num_key_value_heads or c.num_attention_heads) * d, c.rms_norm_eps))
        return super().make_attention(i, **({"q_norm": q_norm, "k_norm": k_norm} | changes))

    def make_block(self, i: int) -> nn.Module:
        return PostBranchNormBlock(self.make_norm(), self.make_attention(i), self.make_norm(), self.make_mlp(i))

    @classmethod
    def weight_map(cls, config: Olmo2Config) -> WeightMap:  # type: ignore[override]
        ours, theirs = "blocks.{i}.", "model.layers.{i}."
        return WeightMap(
            rule("embed.tokens", "model.embed_tokens"),
            rule(ours + "attn", theirs + "self_attn"),
            rule(ours + "attn.q_norm.norm", theirs + "self_attn.q_norm"),
            rule(ours + "attn.k_norm.norm", theirs + "self_attn.k_norm"),
            rule(ours + "norm1", theirs + "post_attention_layernorm"),
            rule(ours + "mlp", theirs + "mlp"),
            rule(ours + "norm2", theirs + "post_feedforward_layernorm"),
            rule("norm", "model.norm"),
            rule("lm_head", "lm_head"),
            ignore=("*.rotary_emb.inv_freq",),
            i=config.num_hidden_layers,
        )
