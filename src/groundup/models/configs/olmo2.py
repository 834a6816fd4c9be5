"""The shape of an OLMo 2."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from groundup.models.configs.llama import LlamaConfig

COMMON = {
    **{"vocab_size": 100_352, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6},
    "rope_parameters": {"rope_theta": 500_000.0},
}


class Olmo2Config(LlamaConfig):
    """OLMo 2 (OLMo team 2024)."""

    architecture: ClassVar[str] = "Olmo2ForCausalLM"
    fixed: ClassVar[dict[str, Any]] = {"head_dim": None, "mlp_bias": False}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "olmo2-1b": {
            **COMMON,
            **{"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 16},
        },
        "olmo2-7b": COMMON,
        "olmo2-13b": {
            **COMMON,
            **{"hidden_size": 5120, "intermediate_size": 13_824, "num_hidden_layers": 40, "num_attention_heads": 40},
        },
        "olmo2-32b": {
            **COMMON,
            **{"hidden_size": 5120, "intermediate_size": 27_648, "num_hidden_layers": 64, "num_attention_heads": 40},
            "num_key_value_heads": 8,
        },
    }

    model_type: Literal["olmo2"] = "olmo2"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=50_304, gt=0)
    """Token ids."""
    rms_norm_eps: float = 1e-5
    """Added to the mean square in RMSNorm."""

    def to_hf(self) -> dict[str, Any]:
        """config.json, which leaves the width of a head to follow from the others."""
        return {name: value for name, value in super().to_hf().items() if name != "head_dim"}
