"""RWKV-3 (Peng 2022), from 2: r, k and v have mixtures of their own; pre-norm blocks with an ordinary residual stream;
a LayerNorm after the embedding.
"""

from typing import Any

from torch import nn

from groundup.layers.rwkv.channel_mix import ChannelMix3
from groundup.layers.rwkv.time_mix import TimeMix3
from groundup.models.configs.rwkv import RWKV3Config
from groundup.models.text.rwkv import COLUMN, RWKV, lines


class RWKV3(RWKV):
    """RWKV-3."""

    Config = RWKV3Config
    config: RWKV3Config

    def make_attention(self, i: int) -> nn.Module:
        return TimeMix3(self.config.hidden_size, self.config.hidden_size, self.config.wkv_epsilon)

    def make_mlp(self, i: int) -> nn.Module:
        return ChannelMix3(self.config.hidden_size, self.config.hidden_width)

    @classmethod
    def parts(cls, config: RWKV3Config) -> dict[str, Any]:
        rates = {"attn.decay": ("att.time_decay", COLUMN), "attn.bonus": ("att.time_first", COLUMN)}
        return rates | lines("attn.mix_", "att.time_mix_", "kvr") | lines("mlp.mix_", "ffn.time_mix_", "kr")
