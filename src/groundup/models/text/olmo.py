"""OLMo (Groeneveld et al. 2024), from Llama: LayerNorm that learns nothing; in OLMo 1.7, queries, keys and values that
are cut off at +-8.
"""

from typing import Any

from torch import Tensor, nn

from groundup.layers.norms import PlainLayerNorm
from groundup.models.configs.olmo import OlmoConfig
from groundup.models.text.llama import Llama


class Olmo(Llama):
    """OLMo 1B and 7B, and 1.7."""

    Config = OlmoConfig
    config: OlmoConfig  # type: ignore[assignment]

    def make_norm(self) -> nn.Module:
        return PlainLayerNorm(self.config.hidden_size, self.config.rms_norm_eps)

    def make_attention(self, i: int, **changes: Any) -> nn.Module:
        attention, limit = super().make_attention(i, **changes), self.config.clip_qkv
        if limit is not None:
            for name in ("q_proj", "k_proj", "v_proj"):
                plain = getattr(attention, name)
                clipped = ClippedLinear(plain.in_features, plain.out_features, limit, bias=plain.bias is not None)
                setattr(attention, name, clipped)
        return attention


class ClippedLinear(nn.Linear):
    """A linear layer whose results are kept between -limit and limit (MosaicML 2023, MPT)."""

    def __init__(self, in_features: int, out_features: int, limit: float, bias: bool = True):
        super().__init__(in_features, out_features, bias)
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.bend(super().forward(x))

    def bend(self, y: Tensor) -> Tensor:
        """What follows the product; what is added to the product (`adapters`) goes before it."""
        return y.clamp(-self.limit, self.limit)
