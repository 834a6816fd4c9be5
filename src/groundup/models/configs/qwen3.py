"""The shape of a Qwen3."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from groundup.models.configs.qwen2 import Qwen2Config

ROPE = {"max_position_embeddings": 40_960, "rope_parameters": {"rope_theta": 1_000_000.0}}
GROUPED = {**ROPE, "num_key_value_heads": 8}


class Qwen3Config(Qwen2Config):
    """Qwen3 (Yang et al. 2025), dense."""

    architecture: ClassVar[str] = "Qwen3ForCausalLM"
    fixed: ClassVar[dict[str, Any]] = {"mlp_bias": False}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "qwen3-0.6b": {
            **GROUPED,
            **{"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
            "tie_word_embeddings": True,
        },
        "qwen3-1.7b": {
            **GROUPED,
            **{"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16},
            "tie_word_embeddings": True,
        },
        "qwen3-4b": {
            **GROUPED,
            **{"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32},
            "tie_word_embeddings": True,
        },
        "qwen3-8b": {
            **GROUPED,
            **{"hidden_size": 4096, "intermediate_size": 12_288, "num_hidden_layers": 36, "num_attention_heads": 32},
        },
        "qwen3-14b": {
            **GROUPED,
            **{"hidden_size": 5120, "intermediate_size": 17_408, "num_hidden_layers": 40, "num_attention_heads": 40},
        },
        "qwen3-32b": {
            **GROUPED,
            **{"hidden_size": 5120, "intermediate_size": 25_600, "num_hidden_layers": 64, "num_attention_heads": 64},
        },
    }

    model_type: Literal["qwen3"] = "qwen3"  # type: ignore[assignment]
    """The family."""
    head_dim: int | None = Field(default=128, gt=0)
    """Width of a head, whatever the width of the residual stream."""
