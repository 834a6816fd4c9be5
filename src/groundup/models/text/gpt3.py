"""GPT-3 (Brown et al. 2020), from GPT-2: layers that see all tokens take turns with layers that see a band of the last
ones (Child et al. 2019); twice the context; one size has heads that do not divide its width.

Its weights are not public. Files are laid out as GPT-2's.
"""

from torch import nn

from groundup.layers.attention import Attention
from groundup.layers.masks import Causal, MaskRule
from groundup.models.configs.gpt3 import GPT3Config
from groundup.models.text.gpt2 import GPT2


class GPT3(GPT2):
    """GPT-3, 125M to 175B."""

    Config = GPT3Config
    config: GPT3Config  # type: ignore[assignment]

    def make_mask(self, i: int) -> MaskRule:
        return Causal(self.config.window(i))

    def make_attention(self, i: int) -> nn.Module:
        c = self.config
        settings = {"head_dim": c.head_dim, "bias": True, "mask": self.make_mask(i), "dropout": c.attn_pdrop}
        return Attention(c.hidden_size, c.num_attention_heads, **settings)
