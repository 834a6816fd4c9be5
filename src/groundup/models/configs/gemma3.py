"""The shape of the text model in a Gemma 3."""

from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveFloat

from groundup.base.errors import CheckpointError
from groundup.models.configs.gemma2 import Gemma2Config
from groundup.models.configs.layer_kinds import one_rope, rope_of_each_kind
from groundup.models.configs.llama import RopeParameters

LINEAR = {"rope_theta": 1_000_000.0, "rope_type": "linear", "factor": 8.0}


class Gemma3Config(Gemma2Config):
    """Gemma 3 (Gemma team 2025), text alone: 270M and 1B, and the text models inside the others."""

    architecture: ClassVar[str] = "Gemma3ForCausalLM"
    harmless: ClassVar[frozenset[str]] = frozenset({"cache_implementation"})
    period: ClassVar[int] = 6
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "gemma-3-270m": {
            **{"hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18, "num_attention_heads": 4},
            **{"num_key_value_heads": 1, "vocab_size": 262_144, "sliding_window": 512},
            "max_position_embeddings": 32_768,
        },
        "gemma-3-1b": {
            **{"hidden_size": 1152, "intermediate_size": 6912, "num_hidden_layers": 26, "num_attention_heads": 4},
            **{"num_key_value_heads": 1, "vocab_size": 262_144, "sliding_window": 512},
            "max_position_embeddings": 32_768,
        },
        "gemma-3-4b-text": {
            **{"hidden_size": 2560, "intermediate_size": 10_240, "num_hidden_layers": 34, "num_attention_heads": 8},
            **{"num_key_value_heads": 4, "rope_parameters": LINEAR, "sliding_window": 1024},
        },
        "gemma-3-12b-text": {
            **{"hidden_size": 3840, "intermediate_size": 15_360, "num_hidden_layers": 48, "num_attention_heads": 16},
            **{"num_key_value_heads": 8, "rope_parameters": LINEAR, "sliding_window": 1024},
        },
        "gemma-3-27b-text": {
            **{"hidden_size": 5376, "intermediate_size": 21_504, "num_hidden_layers": 62, "num_attention_heads": 32},
            **{"num_key_value_heads": 16, "head_dim": 128, "query_pre_attn_scalar": 168},
            **{"rope_parameters": LINEAR, "sliding_window": 1024},
        },
    }

    model_type: Literal["gemma3_text"] = "gemma3_text"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=262_208, gt=0)
    """Token ids."""
    max_position_embeddings: int = Field(default=131_072, gt=0)
    """Longest context the model is meant for, in tokens."""
    attn_logit_softcapping: PositiveFloat | None = None
    """Bound of the scores: none in this family."""
    final_logit_softcapping: PositiveFloat | None = None
    """Bound of the logits."""
    rope_parameters: RopeParameters = RopeParameters(rope_theta=1_000_000.0)
    """Rotary positions of layers that see all."""
    rope_local_base_freq: float = Field(default=10_000.0, gt=0)
    """Base of the wavelengths in layers with a window."""

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Rotary settings come for each kind of layer, or as one theta beside another for windows."""
        values = one_rope(super().translate(values), "rope_local_base_freq", 10_000.0)
        if values.get("attn_logit_softcapping"):
            raise CheckpointError(
                f"config.json: attn_logit_softcapping does nothing in {cls.family()} models: remove it"
            )
        return values | {"rope_parameters": {"rope_theta": 1_000_000.0} | dict(values.get("rope_parameters") or {})}

    def to_hf(self) -> dict[str, Any]:
        """config.json, with rotary settings for each kind of layer."""
        return rope_of_each_kind(super().to_hf(), "rope_local_base_freq")
