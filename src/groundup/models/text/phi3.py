"""Phi-3 (Abdin et al. 2024), from Llama 2: the same computation, with a sliding window and dropout of the
branches; 128k models divide each rotary frequency by a factor of its own. Its files hold queries, keys and values in
one tensor, gate and up projection in another.
"""

from torch import nn

from groundup.layers.block import Block
from groundup.layers.masks import Causal, MaskRule
from groundup.models.configs.phi3 import Phi3Config
from groundup.models.text.llama import Llama
from groundup.weights import Fused, WeightMap, rule


class Phi3(Llama):
    """Phi-3 mini and medium."""

    Config = Phi3Config
    config: Phi3Config  # type: ignore[assignment]

    def make_mask(self, i: int) -> MaskRule:
        return Causal(self.config.sliding_window)

    def make_block(self, i: int) -> nn.Module:
        parts = (self.make_norm(), self.make_attention(i), self.make_norm(), self.make_mlp(i))
        return Block(*parts, attn_dropout=self.config.resid_pdrop, mlp_dropout=self.config.resid_pdrop)

    @classmethod
    def weight_map(cls, config: Phi3Config) -> WeightMap:  # type: ignore[override]
        ours, theirs, c = "blocks.{i}.", "model.layers.{i}.", config
        head = c.hidden_size // c.num_attention_heads
        query, key = c.num_attention_heads * head, (c.num_key_value_heads or c.num_attention_heads) * head
        return WeightMap(
            rule("embed.tokens", "model.embed_tokens"),
            rule(ours + "norm1", theirs + "input_layernorm"),
            rule([ours + f"attn.{p}_proj" for p in "qkv"], theirs + "self_attn.qkv_proj", Fused(query, key, key)),
            rule(ours + "attn.o_proj", theirs + "self_attn.o_proj"),
            rule(ours + "norm2", theirs + "post_attention_layernorm"),
            rule(
                [ours + "mlp.gate_proj", ours + "mlp.up_proj"],
                theirs + "mlp.gate_up_proj",
                Fused(c.intermediate_size, c.intermediate_size),
            ),
            rule(ours + "mlp.down_proj", theirs + "mlp.down_proj"),
            rule("norm", "model.norm"),
            rule("lm_head", "lm_head"),
            ignore=("*.rotary_emb.inv_freq",),
            i=c.num_hidden_layers,
        )
