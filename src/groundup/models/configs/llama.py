"""The shape of a Llama."""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from groundup.base.config import Config
from groundup.base.errors import CheckpointError
from groundup.models.configs.base import ModelConfig


class RopeParameters(Config):
    """Rotary position settings, as config.json nests them since transformers 5."""

    rope_type: Literal["default", "linear", "llama3"] = "default"
    """How frequencies are changed for longer contexts."""
    rope_theta: float = Field(default=10_000.0, gt=0)
    """Base of the wavelengths."""
    factor: float = Field(default=1.0, gt=0)
    """By how much the context is stretched."""
    low_freq_factor: float = 1.0
    """llama3: below this many turns in the original context a frequency is divided by the factor."""
    high_freq_factor: float = 4.0
    """llama3: above this many turns a frequency is kept."""
    original_max_position_embeddings: int = 8192
    """llama3: the context length before stretching."""


class LlamaConfig(ModelConfig):
    """Llama (Touvron et al. 2023), Llama 2, Llama 3."""

    architecture: ClassVar[str] = "LlamaForCausalLM"
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
        if width % 2:
            raise ValueError(f"heads are {width} wide: rotary positions turn pairs of features, so it must be even")
        return self

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Refuse rotary variants that are not built here."""
        kind = (values.get("rope_parameters") or {}).get("rope_type", "default")
        if kind not in ("default", "linear", "llama3"):
            raise CheckpointError(f"config.json: rope_type `{kind}` is not supported by this family")
        return values

    def to_hf(self) -> dict[str, Any]:
        """config.json: only the rotary settings that count, and the head counts and widths that follow from others."""
        values = super().to_hf()
        used = {"default": {"rope_theta"}, "linear": {"rope_theta", "factor"}}.get(self.rope_parameters.rope_type)
        rope = values["rope_parameters"]
        values["rope_parameters"] = {k: v for k, v in rope.items() if used is None or k in used | {"rope_type"}}
        values["head_dim"] = self.head_dim or self.hidden_size // self.num_attention_heads
        values["num_key_value_heads"] = self.num_key_value_heads or self.num_attention_heads
        return values
