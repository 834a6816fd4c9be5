"""RWKV-6, Finch (Peng et al. 2024), from 5.2: mixtures and decays depend on the text, through low-rank networks."""

from typing import Any

from torch import nn

from groundup.layers.rwkv.channel_mix import ChannelMix6
from groundup.layers.rwkv.heads import TimeMix6
from groundup.models.configs.rwkv_heads import RWKV6Config
from groundup.models.text.rwkv import LINE, lines
from groundup.models.text.rwkv5 import RWKVHeads


class RWKV6(RWKVHeads):
    """RWKV-6."""

    Config = RWKV6Config
    config: RWKV6Config

    def make_attention(self, i: int) -> nn.Module:
        c = self.config
        return TimeMix6(c.hidden_size, c.num_attention_heads, c.mix_rank, c.decay_rank, c.group_norm_epsilon)

    def make_mlp(self, i: int) -> nn.Module:
        return ChannelMix6(self.config.hidden_size, self.config.hidden_width)

    @classmethod
    def parts(cls, config: RWKV6Config) -> dict[str, Any]:
        return {
            **lines("attn.shift_", "att.time_maa_", "xwkvrg"),
            **lines("mlp.shift_", "ffn.time_maa_", "kr"),
            "attn.mix_down": "att.time_maa_w1",
            "attn.mix_up": "att.time_maa_w2",
            "attn.decay.bias": ("att.time_decay", LINE),
            "attn.decay.down": "att.time_decay_w1",
            "attn.decay.up": "att.time_decay_w2",
            "attn.bonus": "att.time_faaaa",
            "attn.norm": "att.ln_x",
            "attn.gate_proj": "att.gate",
        }
