"""RWKV-2 (Peng 2022): time and channel mixing with one mixture each, keys that end at 60, and LayerNorms inside the
residual stream; token vectors have no norm of their own.
"""

from typing import Any

from torch import nn

from groundup.layers.embedding import Embedding
from groundup.layers.rwkv.block import NormedStreamBlock
from groundup.layers.rwkv.channel_mix import ChannelMix2
from groundup.layers.rwkv.time_mix import TimeMix2
from groundup.models.configs.rwkv import RWKV2Config
from groundup.models.text.rwkv import COLUMN, LINE, RWKV


class RWKV2(RWKV):
    """RWKV-2."""

    Config = RWKV2Config
    config: RWKV2Config

    def make_embed(self) -> Embedding:
        return Embedding(self.config.vocab_size, self.config.hidden_size)

    def make_attention(self, i: int) -> nn.Module:
        return TimeMix2(self.config.hidden_size, self.config.hidden_size, self.config.wkv_epsilon)

    def make_mlp(self, i: int) -> nn.Module:
        return ChannelMix2(self.config.hidden_size, self.config.hidden_width)

    def make_block(self, i: int) -> nn.Module:
        return NormedStreamBlock(self.make_norm(), self.make_attention(i), self.make_norm(), self.make_mlp(i))

    @classmethod
    def parts(cls, config: RWKV2Config) -> dict[str, Any]:
        rates = {"attn.decay": ("att.time_decay", COLUMN), "attn.bonus": ("att.time_first", COLUMN)}
        return rates | {"attn.mix": ("att.time_mix", LINE), "mlp.mix": ("ffn.time_mix", LINE)}
