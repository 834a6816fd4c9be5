"""ChatGLM-6B (Zeng et al. 2023), from GLM-130B: half of each head is turned by a token's place in the text and half by
its place in the blank, with frequencies in half precision; GELU in place of GeGLU.

Files hold the head a second time, beside the embedding that it is.
"""

from typing import Any

from torch import nn

from groundup.layers.activations import activation
from groundup.layers.feedforward import MLP
from groundup.layers.rope import PairRope, Rope
from groundup.layers.rotary_scaling import HalfPrecision
from groundup.models.configs.chatglm_6b import ChatGLM6BConfig
from groundup.models.text.glm_130b import GLM130B
from groundup.weights import rule


class ChatGLM6B(GLM130B):
    """The first ChatGLM."""

    Config = ChatGLM6BConfig
    config: ChatGLM6BConfig  # type: ignore[assignment]

    @property
    def paired(self) -> bool:
        return self.config.position_encoding_2d

    def make_rope(self, i: int) -> Any:
        kind = PairRope if self.config.position_encoding_2d else Rope
        return kind(self.head_dim, scaling=HalfPrecision())

    def make_mlp(self, i: int) -> nn.Module:
        return MLP(self.config.hidden_size, self.config.intermediate_size, activation("gelu_new"))

    @classmethod
    def mlp_rules(cls, ours: str, theirs: str, inner: int) -> Any:
        return rule(ours + "up_proj", theirs + "dense_h_to_4h"), rule(ours + "down_proj", theirs + "dense_4h_to_h")
