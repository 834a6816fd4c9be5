"""Mistral 7B (Jiang et al. 2023), from Llama 2: every layer sees a sliding window of tokens; what lies further back
arrives through the layers below.

The state keeps the keys and values of the window alone (`state.RollingKVCache`), so memory stops growing there, and a
prompt longer than the window is read in chunks.
"""

from groundup.layers.masks import Causal, MaskRule
from groundup.models.configs.mistral import MistralConfig
from groundup.models.text.llama import Llama


class Mistral(Llama):
    """Mistral 7B."""

    Config = MistralConfig
    config: MistralConfig  # type: ignore[assignment]

    def make_mask(self, i: int) -> MaskRule:
        return Causal(self.config.sliding_window)
