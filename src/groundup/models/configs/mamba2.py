"""The shape of a Mamba-2."""

import math
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from groundup.base.hf_config import INFINITY
from groundup.models.configs.mamba import StateSpaceConfig


class Mamba2Config(StateSpaceConfig):
    """Mamba-2 (Dao & Gu 2024)."""

    architecture: ClassVar[str] = "Mamba2ForCausalLM"
    aliases: ClassVar[dict[str, str]] = {"num_heads": "num_attention_heads"}
    harmless: ClassVar[frozenset[str]] = StateSpaceConfig.harmless | {
        *("chunk_size", "time_step_rank", "norm_before_gate", "intermediate_size")
    }
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        name: {**size, "vocab_size": 50_288, "n_groups": 1, "tie_word_embeddings": True}
        for name, size in {
            "mamba2-130m": {"hidden_size": 768, "num_hidden_layers": 24, "num_attention_heads": 24},
            "mamba2-370m": {"hidden_size": 1024, "num_hidden_layers": 48, "num_attention_heads": 32},
            "mamba2-780m": {"hidden_size": 1536, "num_hidden_layers": 48, "num_attention_heads": 48},
            "mamba2-1.3b": {"hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 64},
            "mamba2-2.7b": {"hidden_size": 2560, "num_hidden_layers": 64, "num_attention_heads": 80},
        }.items()
    } | {"codestral-mamba-7b": {}}

    model_type: Literal["mamba2"] = "mamba2"
    """The family."""
    vocab_size: int = Field(default=32_768, gt=0)
    """Token ids."""
    hidden_size: int = Field(default=4096, gt=0)
    """Width of the residual stream."""
    num_hidden_layers: int = Field(default=64, gt=0)
    """Blocks."""
    num_attention_heads: int = Field(default=128, gt=0)
    """Heads of the state; `num_heads` in its config.json."""
    head_dim: int = Field(default=64, gt=0)
    """Channels of a head."""
    state_size: int = Field(default=128, gt=0)
    """Numbers of state in a channel."""
    n_groups: int = Field(default=8, gt=0)
    """Groups of heads that share b and c, and parts of the gated norm."""
    time_step_limit: tuple[float, float | None] = (0.0, None)
    """No time step is smaller, or larger; None for no largest. transformers heeds it in whole texts, not in steps."""
    tie_word_embeddings: bool = False
    """Whether the output head is the embedding matrix."""

    @property
    def channels(self) -> int:
        """Channels of a block."""
        return self.num_attention_heads * self.head_dim

    @model_validator(mode="after")
    def _heads_fill_the_block(self) -> Self:
        heads, wanted = self.num_attention_heads, self.expand * self.hidden_size
        if self.channels != wanted:
            raise ValueError(
                f"num_heads * head_dim must be expand * hidden_size, but {heads} * {self.head_dim} is {self.channels}, "
                f"and {self.expand:g} * {self.hidden_size} is {wanted:g}"
            )
        if heads % self.n_groups:
            raise ValueError(f"n_groups={self.n_groups} cannot share {heads} heads evenly")
        low, high = self.time_step_limit
        if low < 0 or (high is not None and high < low):
            raise ValueError(f"time_step_limit must be two numbers, 0 <= least <= largest, not {low:g} and {high}")
        return self

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Two spellings of a time step without a largest one."""
        limit = values.get("time_step_limit")
        if isinstance(limit, list | tuple) and len(limit) == 2:
            return values | {"time_step_limit": [None if one in (math.inf, INFINITY) else one for one in limit]}
        return values

    def to_hf(self) -> dict[str, Any]:
        """config.json."""
        low, high = self.time_step_limit
        return super().to_hf() | {"time_step_limit": [low, math.inf if high is None else high]}
