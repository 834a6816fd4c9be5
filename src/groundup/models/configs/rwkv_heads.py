"""The shapes of RWKV-5, 6 and 7, whose heads remember matrices."""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from groundup.models.configs.rwkv import RWKVConfig


class HeadsConfig(RWKVConfig):
    """What versions 5 to 7 share."""

    fixed: ClassVar[dict[str, Any]] = {"initializer_range": 0.02, "layer_norm_epsilon": 1e-5}

    vocab_size: int = Field(default=65_536, gt=0)
    """Token ids: 65,536 with the World tokenizer."""
    num_attention_heads: int = Field(default=12, gt=0)
    """Heads; 64 features each in all published models."""
    max_position_embeddings: int = Field(default=4096, gt=0)
    """The context of training, in tokens; nothing ends there."""
    group_norm_epsilon: float = Field(default=64e-5, gt=0)
    """Added to the variance in the GroupNorm over what each head reads."""

    @property
    def hidden_width(self) -> int:
        """Width of channel mixing: 3.5 times hidden_size, down to a multiple of 32."""
        return self.intermediate_size or int(3.5 * self.hidden_size) // 32 * 32

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads "
                f"({self.num_attention_heads})"
            )
        return self


def size(hidden: int, layers: int) -> dict[str, int]:
    """A published shape: heads of 64."""
    return {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": hidden // 64}


class RWKV5Config(HeadsConfig):
    """RWKV-5: 5.0 and 5.1 (2023), and 5.2, Eagle (Peng et al. 2024)."""

    architecture: ClassVar[str] = "RWKV5"
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "rwkv-5-world-0.4b": size(1024, 24),
        "rwkv-5-world-1.5b": size(2048, 24),
        "rwkv-5-world-3b": size(2560, 32),
        "rwkv-5-world-7b": size(4096, 32),
    }

    model_type: Literal["rwkv5"] = "rwkv5"
    """The family."""
    version: Literal["5.0", "5.1", "5.2"] = "5.2"
    """5.0: a decay for each head, no gate. 5.1: a gate. 5.2: a decay for each feature."""


class RWKV6Config(HeadsConfig):
    """RWKV-6, Finch (Peng et al. 2024)."""

    architecture: ClassVar[str] = "RWKV6"
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "rwkv-6-world-1.6b": size(2048, 24),
        "rwkv-6-world-3b": size(2560, 32),
        "rwkv-6-world-7b": size(4096, 32) | {"mix_rank": 64, "decay_rank": 128},
    }

    model_type: Literal["rwkv6"] = "rwkv6"
    """The family."""
    mix_rank: int = Field(default=32, gt=0)
    """Rank of what the text adds to each mixture."""
    decay_rank: int = Field(default=64, gt=0)
    """Rank of what the text adds to the decays."""


class RWKV7Config(HeadsConfig):
    """RWKV-7, Goose (Peng et al. 2025). Ranks that are not given follow from hidden_size as in the training code."""

    architecture: ClassVar[str] = "RWKV7"
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "rwkv-7-world-0.1b": size(768, 12) | {"decay_rank": 64, "rate_rank": 64, "residual_rank": 32, "gate_rank": 128},
        "rwkv-7-world-0.4b": size(1024, 24)
        | {"decay_rank": 64, "rate_rank": 64, "residual_rank": 32, "gate_rank": 128},
        "rwkv-7-world-1.5b": size(2048, 24)
        | {"decay_rank": 96, "rate_rank": 96, "residual_rank": 64, "gate_rank": 256},
        "rwkv-7-world-2.9b": size(2560, 32)
        | {"decay_rank": 96, "rate_rank": 96, "residual_rank": 64, "gate_rank": 320},
    }

    model_type: Literal["rwkv7"] = "rwkv7"
    """The family."""
    decay_rank: int | None = Field(default=None, gt=0)
    """Rank of the decays; about 2.5 times the root of hidden_size when not given."""
    rate_rank: int | None = Field(default=None, gt=0)
    """Rank of the in-context learning rates; as decay_rank when not given."""
    residual_rank: int | None = Field(default=None, gt=0)
    """Rank of the mixture with the first layer's values; about 1.7 times the root when not given."""
    gate_rank: int | None = Field(default=None, gt=0)
    """Rank of the gate; about 5 times the root when not given."""

    @property
    def hidden_width(self) -> int:
        """Width of channel mixing: 4 times hidden_size."""
        return self.intermediate_size or 4 * self.hidden_size

    @property
    def ranks(self) -> tuple[int, int, int, int]:
        """Of decays, rates, residual and gate."""
        given = (self.decay_rank, self.rate_rank, self.residual_rank, self.gate_rank)
        decay, rate, residual, gate = (
            rank or max(32, round(factor * self.hidden_size**0.5 / 32) * 32)
            for rank, factor in zip(given, (2.5, 2.5, 1.7, 5.0), strict=True)
        )
        return decay, rate, residual, gate

    def to_hf(self) -> dict[str, Any]:
        """config.json, with the ranks that follow from hidden_size."""
        names = ("decay_rank", "rate_rank", "residual_rank", "gate_rank")
        return super().to_hf() | dict(zip(names, self.ranks, strict=True))
