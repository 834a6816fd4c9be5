"""The shape of a Qwen2 or Qwen2.5."""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from groundup.models.configs.llama import LlamaConfig

LayerType = Literal["full_attention", "sliding_attention"]
LONG = {"max_position_embeddings": 131_072, "rope_parameters": {"rope_theta": 1_000_000.0}}
HALF = {
    **{"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14},
    **{"num_key_value_heads": 2, "tie_word_embeddings": True},
}
ONE_AND_A_HALF = {
    **{"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12},
    **{"num_key_value_heads": 2, "tie_word_embeddings": True},
}
THREE = {
    **{"hidden_size": 2048, "intermediate_size": 11_008, "num_hidden_layers": 36, "num_attention_heads": 16},
    **{"num_key_value_heads": 2, "tie_word_embeddings": True},
}
SEVEN = {
    **{"hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28, "num_attention_heads": 28},
    **{"num_key_value_heads": 4, "vocab_size": 152_064},
}
FOURTEEN = {
    **{"hidden_size": 5120, "intermediate_size": 13_824, "num_hidden_layers": 48, "num_attention_heads": 40},
    **{"num_key_value_heads": 8, "vocab_size": 152_064, "rms_norm_eps": 1e-5},
}
THIRTY_TWO = {**FOURTEEN, "intermediate_size": 27_648, "num_hidden_layers": 64}
SEVENTY_TWO = {
    **{"hidden_size": 8192, "intermediate_size": 29_568, "num_hidden_layers": 80, "num_attention_heads": 64},
    **{"num_key_value_heads": 8, "vocab_size": 152_064, "rms_norm_eps": 1e-5},
}


WHOLE = {"max_position_embeddings": 32_768, "rope_parameters": {"rope_theta": 1_000_000.0}}


def first(hidden: int, intermediate: int, layers: int, heads: int, **changes: Any) -> dict[str, Any]:
    """A size of Qwen1.5, with as many key-value heads as query heads where nothing else is said."""
    shape = {"hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers}
    return {**shape, "num_attention_heads": heads, "num_key_value_heads": heads} | changes


FIRST = {
    "0.5b": first(1024, 2816, 24, 16, tie_word_embeddings=True),
    "1.8b": first(2048, 5504, 24, 16),
    "4b": first(2560, 6912, 40, 20, rope_parameters={"rope_theta": 5_000_000.0}),
    "7b": first(4096, 11_008, 32, 32),
    "14b": first(5120, 13_696, 40, 40, vocab_size=152_064),
    "32b": first(5120, 27_392, 64, 40, num_key_value_heads=8, vocab_size=152_064),
    "72b": first(8192, 24_576, 80, 64, vocab_size=152_064),
    "110b": first(8192, 49_152, 80, 64, num_key_value_heads=8, vocab_size=152_064),
}
"""Qwen1.5, by size."""


class Qwen2Config(LlamaConfig):
    """Qwen2 (Yang et al. 2024) and Qwen2.5, dense."""

    architecture: ClassVar[str] = "Qwen2ForCausalLM"
    harmless: ClassVar[frozenset[str]] = frozenset({"use_mrope"})
    fixed: ClassVar[dict[str, Any]] = {"attention_bias": False, "mlp_bias": False}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        **{f"qwen1.5-{name}": {**WHOLE, **size} for name, size in FIRST.items()},
        "qwen2-0.5b": {**LONG, **HALF},
        "qwen2-1.5b": {**LONG, **ONE_AND_A_HALF},
        "qwen2-7b": {**LONG, **SEVEN},
        "qwen2-72b": {**LONG, **SEVENTY_TWO},
        "qwen2.5-0.5b": {**LONG, **HALF, "max_position_embeddings": 32_768},
        "qwen2.5-1.5b": {**LONG, **ONE_AND_A_HALF},
        "qwen2.5-3b": {**LONG, **THREE, "max_position_embeddings": 32_768},
        "qwen2.5-7b": {**LONG, **SEVEN},
        "qwen2.5-14b": {**LONG, **FOURTEEN},
        "qwen2.5-32b": {**LONG, **THIRTY_TWO},
        "qwen2.5-72b": {**LONG, **SEVENTY_TWO},
    }

    model_type: Literal["qwen2"] = "qwen2"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=151_936, gt=0)
    """Token ids."""
    intermediate_size: int = Field(default=22_016, gt=0)
    """Width of the gated MLP."""
    max_position_embeddings: int = Field(default=32_768, gt=0)
    """Longest context the model is meant for, in tokens."""
    use_sliding_window: bool = False
    """Whether some layers see a window only."""
    sliding_window: int | None = Field(default=None, gt=0)
    """Tokens that each token sees in those layers, itself included."""
    max_window_layers: int = Field(default=28, ge=0)
    """Layers before this one see everything, where `layer_types` is not given."""
    layer_types: list[LayerType] | None = None
    """What each layer sees; by `max_window_layers` when not given."""

    @model_validator(mode="after")
    def _every_layer_has_a_type(self) -> "Qwen2Config":
        if self.layer_types is not None and len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(
                f"layer_types tells of {len(self.layer_types)} layers, num_hidden_layers of {self.num_hidden_layers}"
            )
        return self

    def window(self, i: int) -> int | None:
        """How many tokens layer i sees; None for all."""
        if not self.use_sliding_window:
            return None
        by_number: LayerType = "sliding_attention" if i >= self.max_window_layers else "full_attention"
        kind = by_number if self.layer_types is None else self.layer_types[i]
        return self.sliding_window if kind == "sliding_attention" else None

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A file without these two keys means 32 and 4096; a window that is not used is no window."""
        values = super().translate({"num_key_value_heads": 32, "sliding_window": 4096} | values)
        if not values.get("use_sliding_window", False):
            values["sliding_window"] = None
        return values

    def to_hf(self) -> dict[str, Any]:
        """config.json, with a type for each layer: older readers go by `max_window_layers`, newer ones by these."""
        windows = [self.window(i) for i in range(self.num_hidden_layers)]
        types = ["full_attention" if window is None else "sliding_attention" for window in windows]
        return super().to_hf() | {"layer_types": types}
