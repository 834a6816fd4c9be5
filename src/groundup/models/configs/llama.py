"""The shape of a Llama."""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from groundup.base.config import Config
from groundup.models.configs.base import ModelConfig


class RopeParameters(Config):
    """Rotary position settings, as config.json nests them since transformers 5."""

    rope_type: Literal["default", "linear", "dynamic", "yarn", "llama3", "longrope"] = "default"
    """How frequencies are changed for longer contexts."""
    rope_theta: float = Field(default=10_000.0, gt=0)
    """Base of the wavelengths."""
    partial_rotary_factor: float = Field(default=1.0, gt=0, le=1)
    """Share of each head that is turned; only some families have it."""
    factor: float | None = Field(default=None, gt=0)
    """By how much the context is stretched; for longrope the new context by the original one when not given."""
    original_max_position_embeddings: int | None = Field(default=None, gt=0)
    """The context length before stretching; max_position_embeddings when not given."""
    low_freq_factor: float = 1.0
    """llama3: below this many turns in the original context a frequency is divided by the factor."""
    high_freq_factor: float = 4.0
    """llama3: above this many turns a frequency is kept."""
    beta_fast: float = 32.0
    """yarn: above this many turns in the original context a frequency is kept."""
    beta_slow: float = 1.0
    """yarn: below this many turns a frequency is divided by the factor."""
    truncate: bool = True
    """yarn: whether the range between the two begins and ends at whole numbers."""
    attention_factor: float | None = None
    """yarn, longrope: factor of cosines and sines; follows from the others when not given."""
    mscale: float | None = None
    """yarn: weight of the logarithm in the attention factor."""
    mscale_all_dim: float | None = None
    """yarn: the same below the fraction line."""
    short_factor: tuple[float, ...] | None = None
    """longrope: the divisor of each frequency up to the original context."""
    long_factor: tuple[float, ...] | None = None
    """longrope: the divisors beyond it."""

    @model_validator(mode="after")
    def _what_the_type_needs(self) -> "RopeParameters":
        needed = NEEDED.get(self.rope_type, ("factor",))
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"rope_type {self.rope_type} needs {' and '.join(missing)}")
        return self

    def used(self) -> dict[str, Any]:
        """The settings that count for this type; what transformers takes as given is left out."""
        kept = {"rope_type", "rope_theta", *ROPE_SETTINGS[self.rope_type]}
        if self.partial_rotary_factor != 1:
            kept.add("partial_rotary_factor")
        usual = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True}
        kept -= {name for name, value in usual.items() if getattr(self, name) == value}
        values = self.model_dump(mode="json")
        return {name: value for name, value in values.items() if name in kept and value is not None}


ROPE_SETTINGS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": (
        *("factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "truncate", "attention_factor"),
        *("mscale", "mscale_all_dim"),
    ),
    "llama3": ("factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
    "longrope": ("factor", "original_max_position_embeddings", "attention_factor", "short_factor", "long_factor"),
    "proportional": ("factor", "partial_rotary_factor"),
}
"""What each rope_type reads besides theta."""

NEEDED: dict[str, tuple[str, ...]] = {
    "default": (),
    "longrope": ("short_factor", "long_factor"),
    "proportional": (),
}
"""What a file has to say for a rope_type; else its factor."""


CODE = {"max_position_embeddings": 16_384, "rms_norm_eps": 1e-5, "rope_parameters": {"rope_theta": 1_000_000.0}}
"""What Code Llama (Roziere et al. 2023) changes in Llama 2: longer wavelengths, for files of 16k tokens and more."""


class LlamaConfig(ModelConfig):
    """Llama (Touvron et al. 2023), Llama 2, Llama 3, Code Llama."""

    architecture: ClassVar[str] = "LlamaForCausalLM"
    partial_rotary: ClassVar[bool] = False
    """Whether the family may turn a part of each head alone."""
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "llama-7b": {},
        "llama-13b": {
            **{"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
        },
        "llama-33b": {
            **{"hidden_size": 6656, "intermediate_size": 17920, "num_hidden_layers": 60, "num_attention_heads": 52},
        },
        "llama-65b": {
            **{"hidden_size": 8192, "intermediate_size": 22016, "num_hidden_layers": 80, "num_attention_heads": 64},
        },
        "llama-2-7b": {"max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
        "llama-2-13b": {
            **{"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
            **{"max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
        },
        "llama-2-34b": {
            **{"hidden_size": 8192, "intermediate_size": 22016, "num_hidden_layers": 48, "num_attention_heads": 64},
            **{"num_key_value_heads": 8, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
        },
        "llama-2-70b": {
            **{"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64},
            **{"num_key_value_heads": 8, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
        },
        "code-llama-7b": {**CODE, "vocab_size": 32_016},
        "code-llama-13b": {
            **{"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
            **{**CODE, "vocab_size": 32_016},
        },
        "code-llama-34b": {
            **{"hidden_size": 8192, "intermediate_size": 22016, "num_hidden_layers": 48, "num_attention_heads": 64},
            **{**CODE, "num_key_value_heads": 8},
        },
        "code-llama-70b": {
            **{"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64},
            **{**CODE, "num_key_value_heads": 8, "vocab_size": 32_016},
        },
        "llama-3-8b": {
            **{"vocab_size": 128_256, "intermediate_size": 14_336, "num_key_value_heads": 8},
            **{"max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_parameters": {"rope_theta": 500_000.0}},
        },
        "llama-3-70b": {
            **{"vocab_size": 128_256, "hidden_size": 8192, "intermediate_size": 28_672, "num_hidden_layers": 80},
            **{"num_attention_heads": 64, "num_key_value_heads": 8, "max_position_embeddings": 8192},
            **{"rms_norm_eps": 1e-5, "rope_parameters": {"rope_theta": 500_000.0}},
        },
    }

    model_type: Literal["llama"] = "llama"
    """The family."""
    vocab_size: int = Field(default=32_000, gt=0)
    """Token ids."""
    hidden_size: int = Field(default=4096, gt=0)
    """Width of the residual stream."""
    intermediate_size: int = Field(default=11_008, gt=0)
    """Width of the gated MLP."""
    num_hidden_layers: int = Field(default=32, gt=0)
    """Blocks."""
    num_attention_heads: int = Field(default=32, gt=0)
    """Query heads."""
    num_key_value_heads: int | None = Field(default=None, gt=0)
    """Key-value heads; as many as query heads when not given."""
    head_dim: int | None = Field(default=None, gt=0)
    """Width of a head; hidden_size / num_attention_heads when not given."""
    hidden_act: str = "silu"
    """Activation of the gate."""
    rms_norm_eps: float = 1e-6
    """Added to the mean square in RMSNorm."""
    rope_parameters: RopeParameters = RopeParameters()
    """Rotary positions."""
    attention_bias: bool = False
    """Biases on the four projections of attention."""
    mlp_bias: bool = False
    """Biases in the MLP."""
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout of the attention weights."""

    @model_validator(mode="after")
    def _heads_divide(self) -> "LlamaConfig":
        if self.num_attention_heads % (self.num_key_value_heads or self.num_attention_heads):
            raise ValueError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of num_key_value_heads "
                f"({self.num_key_value_heads})"
            )
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads "
                f"({self.num_attention_heads})"
            )
        width = self.head_dim or self.hidden_size // self.num_attention_heads
        share = self.rope_parameters.partial_rotary_factor
        if share != 1 and not self.partial_rotary:
            raise ValueError(f"{self.family()} models turn whole heads: partial_rotary_factor is 1, not {share}")
        if int(width * share) % 2:
            raise ValueError(
                f"{int(width * share)} features of a head are turned: rotary positions turn pairs, so it must be even"
            )
        return self

    @model_validator(mode="after")
    def _a_divisor_for_each_wave(self) -> "LlamaConfig":
        rope, width = self.rope_parameters, self.head_dim or self.hidden_size // self.num_attention_heads
        pairs = int(width * rope.partial_rotary_factor) // 2
        for name in ("short_factor", "long_factor"):
            divisors = getattr(rope, name)
            if divisors is not None and len(divisors) != pairs:
                raise ValueError(f"{name} has {len(divisors)} numbers, but a head has {pairs} frequencies")
        return self

    def to_hf(self) -> dict[str, Any]:
        """config.json: only the rotary settings that count, and the head counts and widths that follow from others."""
        values = super().to_hf()
        values["rope_parameters"] = self.rope_parameters.used()
        values["head_dim"] = self.head_dim or self.hidden_size // self.num_attention_heads
        values["num_key_value_heads"] = self.num_key_value_heads or self.num_attention_heads
        return values
