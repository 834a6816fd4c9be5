"""The shape of a model put together from parts that are chosen by name."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from groundup.models.configs.base import ModelConfig
from groundup.models.configs.llama import RopeParameters


class PartsConfig(ModelConfig):
    """A decoder from parts. The names are the keys of the tables in `models/text/parts.py`, where more can be added."""

    architecture: ClassVar[str] = "PartsForCausalLM"

    model_type: Literal["parts"] = "parts"
    """The family."""
    vocab_size: int = Field(default=4096, gt=0)
    """Token ids."""
    hidden_size: int = Field(default=128, gt=0)
    """Width of the residual stream."""
    num_hidden_layers: int = Field(default=4, gt=0)
    """Blocks."""
    num_attention_heads: int = Field(default=4, gt=0)
    """Query heads."""
    norm: str = "rmsnorm"
    """rmsnorm, layernorm, std_layernorm (deviation in place of the variance's root)."""
    residual: str = "pre"
    """Where the norms stand: pre, post, sandwich, end (of each branch alone), deepnorm."""
    positions: str = "rope"
    """rope, rope_interleaved, learned, sinusoidal, alibi, kerple_power, kerple_log, t5, shaw, transformer_xl, none."""
    attention: str = "mha"
    """mha, gqa, mqa."""
    mask: str = "causal"
    """causal, prefix, unilm, blank_infilling."""
    mlp: str = "gated"
    """gated, dense."""
    activation: str = "silu"
    """Of the MLP, or of its gate: silu, gelu, gelu_new, relu, relu2, mish, sigmoid, tanh, linear."""
    initializer: str | None = None
    """normal, gpt2, xavier, orthogonal, deepnorm; deepnorm for such blocks and else normal when not given."""

    num_key_value_heads: int | None = Field(default=None, gt=0)
    """Of gqa; half of the heads when not given. mha has all, mqa one."""
    intermediate_size: int | None = Field(default=None, gt=0)
    """Width of the MLP; 4 times hidden_size when not given, 2/3 of that if gated, in multiples of 8."""
    norm_eps: float = 1e-6
    """Added where a norm divides."""
    bias: bool = False
    """Whether the linear layers of attention and MLP have biases."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of embeddings, attention weights and branches."""
    sliding_window: int | None = Field(default=None, gt=0)
    """causal: tokens that each token sees, itself included; all before it when not given."""
    rope_parameters: RopeParameters = RopeParameters()
    """Rotary positions."""
    position_buckets: int = Field(default=32, ge=4)
    """t5: rows of the table."""
    max_distance: int = Field(default=128, gt=1)
    """t5: distances from here on share a bucket. shaw: they share a vector."""
    memory_length: int | None = Field(default=None, gt=0)
    """transformer_xl: remember the hidden vectors of that many tokens of earlier segments, in training too."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """The sizes that follow from others."""
        if not isinstance(values, Mapping):
            return values
        filled = dict(values)
        get = lambda name: filled.get(name, cls.model_fields[name].default)  # noqa: E731
        heads, width = get("num_attention_heads"), get("hidden_size")
        if not isinstance(heads, int) or not isinstance(width, int):
            return values  # the fields will say so
        kv_heads = {"mha": heads, "mqa": 1}.get(str(get("attention")), get("num_key_value_heads") or max(heads // 2, 1))
        filled["num_key_value_heads"] = kv_heads
        if filled.get("intermediate_size") is None:
            filled["intermediate_size"] = -(-8 * width // 24) * 8 if get("mlp") == "gated" else 4 * width
        return filled

    @model_validator(mode="after")
    def _heads_divide(self) -> "PartsConfig":
        heads, width = self.num_attention_heads, self.hidden_size
        if width % heads:
            raise ValueError(f"hidden_size ({width}) must be a multiple of num_attention_heads ({heads})")
        if heads % (self.num_key_value_heads or heads):
            raise ValueError(
                f"num_attention_heads ({heads}) must be a multiple of num_key_value_heads ({self.num_key_value_heads})"
            )
        if self.positions.startswith("rope") and int(width // heads * self.rope_parameters.partial_rotary_factor) % 2:
            raise ValueError(f"heads are {width // heads} wide: rotary positions turn pairs, so it must be even")
        if self.memory_length is not None and self.positions != "transformer_xl":
            raise ValueError(f"memory_length goes with positions transformer_xl, not {self.positions}")
        return self

    def to_hf(self) -> dict[str, Any]:
        """config.json, with the rotary settings that count."""
        return super().to_hf() | {"rope_parameters": self.rope_parameters.used()}
