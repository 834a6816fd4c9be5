"""Gemma (Gemma team 2024), from Llama: token vectors are multiplied by sqrt(D), the gains of the norms are 1 + w, the
gate's activation is GELU, heads are 256 wide, and the head is always the embedding.
"""

from torch import nn

from groundup.layers.embedding import Embedding, ScaledEmbedding
from groundup.layers.norms import OffsetRMSNorm
from groundup.models.configs.gemma import GemmaConfig
from groundup.models.text.llama import Llama


class Gemma(Llama):
    """Gemma 2B and 7B."""

    Config = GemmaConfig
    config: GemmaConfig  # type: ignore[assignment]

    def make_embed(self) -> Embedding:
        return ScaledEmbedding(self.config.vocab_size, self.config.hidden_size)

    def make_norm(self) -> nn.Module:
        return OffsetRMSNorm(self.config.hidden_size, self.config.rms_norm_eps)
