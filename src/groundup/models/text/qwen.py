"""Qwen (Bai et al. 2023), from Llama: biases on queries, keys and values; beyond the context of training, rotary waves
are stretched and queries sharpened. Files hold queries, keys and values in one tensor.
"""

from typing import Any

from torch import nn

from groundup.layers.embedding import Embedding
from groundup.layers.feedforward import GatedMLP
from groundup.layers.logn_attention import LogNAttention
from groundup.layers.rope import Rope
from groundup.layers.rotary_scaling import DoublingNTKScaling
from groundup.models.configs.qwen import QwenConfig
from groundup.models.text.llama import Llama
from groundup.weights import Fused, WeightMap, rule


class Qwen(Llama):
    """Qwen 1.8B, 7B, 14B, 72B."""

    Config = QwenConfig
    config: QwenConfig  # type: ignore[assignment]

    def make_embed(self) -> Embedding:
        return Embedding(self.config.vocab_size, self.config.hidden_size, self.config.embd_pdrop)

    def make_rope(self, i: int) -> Rope:
        c = self.config
        scaling = DoublingNTKScaling(c.seq_length) if c.use_dynamic_ntk else None
        return Rope(self.head_dim, c.rotary_emb_base, scaling=scaling)

    def make_attention(self, i: int, **changes: Any) -> nn.Module:
        c, biases = self.config, {"bias": True, "out_bias": False}
        if not c.use_logn_attn:
            return super().make_attention(i, **(biases | changes))
        settings = biases | {"rope": self.make_rope(i), "mask": self.make_mask(i), "dropout": c.attention_dropout}
        return LogNAttention(c.hidden_size, c.num_attention_heads, trained_length=c.seq_length, **(settings | changes))

    def make_mlp(self, i: int) -> nn.Module:
        return GatedMLP(self.config.hidden_size, self.config.intermediate_size // 2)

    @classmethod
    def weight_map(cls, config: QwenConfig) -> WeightMap:  # type: ignore[override]
        ours, theirs, d = "blocks.{i}.", "transformer.h.{i}.", config.hidden_size
        return WeightMap(
            rule("embed.tokens", "transformer.wte"),
            rule(ours + "norm1", theirs + "ln_1"),
            rule([ours + f"attn.{p}_proj" for p in "qkv"], theirs + "attn.c_attn", Fused(d, d, d)),
            rule(ours + "attn.o_proj", theirs + "attn.c_proj"),
            rule(ours + "norm2", theirs + "ln_2"),
            rule(ours + "mlp.up_proj", theirs + "mlp.w1"),
            rule(ours + "mlp.gate_proj", theirs + "mlp.w2"),
            rule(ours + "mlp.down_proj", theirs + "mlp.c_proj"),
            rule("norm", "transformer.ln_f"),
            rule("lm_head", "lm_head"),
            ignore=("*rotary_emb.inv_freq",),
            i=config.num_hidden_layers,
        )
