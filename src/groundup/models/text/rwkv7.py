"""RWKV-7, Goose (Peng et al. 2025), from 6: what a head remembers can be corrected (a generalised delta rule), values
lean on those of the first layer, gates and rates are low-rank networks; channel mixing has no receptance.
"""

from typing import Any

from torch import nn

from groundup.layers.rwkv.channel_mix import ChannelMix7
from groundup.layers.rwkv.heads import TimeMix7
from groundup.models.configs.rwkv_heads import RWKV7Config
from groundup.models.text.rwkv import LINE, lines, published_map
from groundup.models.text.rwkv5 import RWKVHeads
from groundup.weights import WeightMap

NETWORKS = {"decay": "w", "rate": "a", "residual": "v", "gate": "g"}


class RWKV7(RWKVHeads):
    """RWKV-7."""

    Config = RWKV7Config
    config: RWKV7Config

    def make_attention(self, i: int) -> nn.Module:
        c = self.config
        return TimeMix7(c.hidden_size, c.num_attention_heads, c.ranks, first=i == 0, eps=c.group_norm_epsilon)

    def make_mlp(self, i: int) -> nn.Module:
        return ChannelMix7(self.config.hidden_size, self.config.hidden_width)

    @classmethod
    def parts(cls, config: RWKV7Config) -> dict[str, Any]:
        names: dict[str, Any] = {
            **lines("attn.shift_", "att.x_", "rwkvag"),
            "mlp.shift_k": ("ffn.x_k", LINE),
            "attn.removal": ("att.k_k", LINE),
            "attn.replacement": ("att.k_a", LINE),
            "attn.boost": "att.r_k",
            "attn.norm": "att.ln_x",
        }
        for ours, theirs in NETWORKS.items():
            names |= {f"attn.{ours}.down": f"att.{theirs}1", f"attn.{ours}.up": f"att.{theirs}2"}
            names[f"attn.{ours}.bias"] = (f"att.{theirs}0", LINE)
        return names

    @classmethod
    def weight_map(cls, config: RWKV7Config) -> WeightMap:
        """The names of the authors' .pth files; some hold a residual of the first layer, which nothing uses."""
        ignore = tuple(f"blocks.0.att.v{n}" for n in (0, 1, 2))
        return published_map(cls.parts(config), config.num_hidden_layers, ignore)
