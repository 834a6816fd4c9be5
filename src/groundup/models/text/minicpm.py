"""MiniCPM (Hu et al. 2024), from Llama: factors that let one learning rate serve all widths and depths (after Yang et
al. 2022, muP). Token vectors times 12, branches times 1.4 / sqrt(layers), hidden vectors over D / 256 before the tied
head.
"""

import math

from torch import Tensor, nn

from groundup.layers.block import ScaledBlock
from groundup.layers.embedding import Embedding, ScaledEmbedding
from groundup.layers.norms import RMSNorm
from groundup.models.configs.minicpm import MiniCPMConfig
from groundup.models.text.llama import Llama


class MiniCPM(Llama):
    """MiniCPM 1B and 2B."""

    Config = MiniCPMConfig
    config: MiniCPMConfig  # type: ignore[assignment]

    def make_embed(self) -> Embedding:
        return ScaledEmbedding(self.config.vocab_size, self.config.hidden_size, self.config.scale_emb)

    def make_block(self, i: int) -> nn.Module:
        parts = (self.make_norm(), self.make_attention(i), self.make_norm(), self.make_mlp(i))
        return ScaledBlock(*parts, self.config.scale_depth / math.sqrt(self.config.num_hidden_layers))

    def make_final_norm(self) -> nn.Module:
        c = self.config
        return DividedRMSNorm(c.hidden_size, c.rms_norm_eps, c.hidden_size / c.dim_model_base)


class DividedRMSNorm(RMSNorm):
    """RMSNorm whose result is divided by a number."""

    def __init__(self, dim: int, eps: float, divisor: float):
        super().__init__(dim, eps)
        self.divisor = divisor

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / self.divisor
