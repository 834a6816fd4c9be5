"""RWKV-4 (Peng et al. 2023), from 3: the weighted mean is computed with its largest exponent taken out, so that keys
need no bound. Hugging Face's checkpoints have names of their own.
"""

from typing import Any

from torch import nn

from groundup.layers.rwkv.channel_mix import ChannelMix3
from groundup.layers.rwkv.time_mix import TimeMix4
from groundup.models.configs.rwkv import RWKV4Config
from groundup.models.text.rwkv import LINE, RWKV, lines, published_map
from groundup.weights import WeightMap, rule


class RWKV4(RWKV):
    """RWKV-4."""

    Config = RWKV4Config
    config: RWKV4Config

    def make_attention(self, i: int) -> nn.Module:
        return TimeMix4(self.config.hidden_size, self.config.channels)

    def make_mlp(self, i: int) -> nn.Module:
        return ChannelMix3(self.config.hidden_size, self.config.hidden_width)

    @classmethod
    def parts(cls, config: RWKV4Config) -> dict[str, Any]:
        rates = {"attn.decay": "att.time_decay", "attn.bonus": "att.time_first"}
        return rates | lines("attn.mix_", "att.time_mix_", "kvr") | lines("mlp.mix_", "ffn.time_mix_", "kr")

    @classmethod
    def published_map(cls, config: RWKV4Config) -> WeightMap:
        """The names of the authors' .pth files."""
        return published_map(cls.parts(config), config.num_hidden_layers)

    @classmethod
    def weight_map(cls, config: RWKV4Config) -> WeightMap:
        """The names of Hugging Face's checkpoints."""
        ours, theirs = "blocks.{i}.", "rwkv.blocks.{i}."
        matrices = {"r_proj": "receptance", "k_proj": "key", "v_proj": "value", "o_proj": "output"}
        mixtures = {"mix_k": "time_mix_key", "mix_v": "time_mix_value", "mix_r": "time_mix_receptance"}
        return WeightMap(
            rule("embed.tokens", "rwkv.embeddings"),
            rule("embed.norm", "rwkv.blocks.0.pre_ln"),
            rule(ours + "norm1", theirs + "ln1"),
            rule(ours + "attn.decay", theirs + "attention.time_decay"),
            rule(ours + "attn.bonus", theirs + "attention.time_first"),
            *(rule(f"{ours}attn.{o}", f"{theirs}attention.{t}", LINE) for o, t in mixtures.items()),
            *(rule(f"{ours}attn.{o}", f"{theirs}attention.{t}") for o, t in matrices.items()),
            rule(ours + "norm2", theirs + "ln2"),
            *(rule(f"{ours}mlp.{o}", f"{theirs}feed_forward.{t}", LINE) for o, t in mixtures.items() if o != "mix_v"),
            rule(ours + "mlp.r_proj", theirs + "feed_forward.receptance"),
            rule(ours + "mlp.up_proj", theirs + "feed_forward.key"),
            rule(ours + "mlp.down_proj", theirs + "feed_forward.value"),
            rule("norm", "rwkv.ln_out"),
            rule("lm_head", "head"),
            prefix="rwkv.",
            i=config.num_hidden_layers,
        )
