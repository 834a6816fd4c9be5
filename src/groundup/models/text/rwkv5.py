"""RWKV-5: 5.0, 5.1 (2023) and 5.2, Eagle (Peng et al. 2024), from 4: heads that remember a matrix each in place of
channels that remember a number, a GroupNorm over what they read, and (from 5.1) a gate. Channel mixing is narrower.
"""

from typing import Any

from torch import nn

from groundup.layers.rwkv.channel_mix import ChannelMix3
from groundup.layers.rwkv.heads import TimeMix50, TimeMix51, TimeMix52
from groundup.models.configs.rwkv_heads import RWKV5Config
from groundup.models.text.rwkv import RWKV, ZERO, lines
from groundup.weights import Mapped

TIME_MIX = {"5.0": TimeMix50, "5.1": TimeMix51, "5.2": TimeMix52}
PER_HEAD = Mapped(lambda tensor: tensor.reshape(-1, 1), lambda tensor: tensor.flatten())


class RWKVHeads(RWKV):
    """What versions 5 to 7 share."""

    def gain(self, name: str, tallness: float) -> float:
        """Keys and gates begin small."""
        if name.endswith(ZERO):
            return 0.0
        return 0.1 if name.endswith(("attn.k_proj", "attn.gate_proj")) else 1.0


class RWKV5(RWKVHeads):
    """RWKV-5."""

    Config = RWKV5Config
    config: RWKV5Config

    def make_attention(self, i: int) -> nn.Module:
        c = self.config
        return TIME_MIX[c.version](c.hidden_size, c.num_attention_heads, c.group_norm_epsilon)

    def make_mlp(self, i: int) -> nn.Module:
        return ChannelMix3(self.config.hidden_size, self.config.hidden_width)

    @classmethod
    def parts(cls, config: RWKV5Config) -> dict[str, Any]:
        names = lines("attn.mix_", "att.time_mix_", TIME_MIX[config.version].mixtures)
        names |= lines("mlp.mix_", "ffn.time_mix_", "kr")
        bonus = "att.time_first" if config.version == "5.0" else "att.time_faaaa"
        shape = None if config.version == "5.2" else PER_HEAD
        return {
            **names,
            "attn.decay": ("att.time_decay", shape),
            "attn.bonus": (bonus, shape),
            "attn.norm": "att.ln_x",
            **({} if config.version == "5.0" else {"attn.gate_proj": "att.gate"}),
        }
