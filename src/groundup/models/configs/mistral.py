"""The shape of a Mistral."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from groundup.models.configs.llama import LlamaConfig


class MistralConfig(LlamaConfig):
    """Mistral 7B (Jiang et al. 2023)."""

    architecture: ClassVar[str] = "MistralForCausalLM"
    fixed: ClassVar[dict[str, Any]] = {"attention_bias": False, "mlp_bias": False}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "mistral-7b-v0.1": {"rms_norm_eps": 1e-5, "num_key_value_heads": 8, "sliding_window": 4096},
        "mistral-7b-v0.2": {
            **{"rms_norm_eps": 1e-5, "num_key_value_heads": 8, "rope_parameters": {"rope_theta": 1_000_000.0}},
        },
        "mistral-7b-v0.3": {
            **{"rms_norm_eps": 1e-5, "num_key_value_heads": 8, "rope_parameters": {"rope_theta": 1_000_000.0}},
            **{"vocab_size": 32_768},
        },
    }

    model_type: Literal["mistral"] = "mistral"  # type: ignore[assignment]
    """The family."""
    intermediate_size: int = Field(default=14_336, gt=0)
    """Width of the gated MLP."""
    max_position_embeddings: int = Field(default=32_768, gt=0)
    """Longest context the model is meant for, in tokens."""
    sliding_window: int | None = Field(default=None, gt=0)
    """Tokens that each token sees, itself included; all before it when not given."""

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A file without these two keys means 8 and 4096; one with `null` means none of the kind."""
        return super().translate({"num_key_value_heads": 8, "sliding_window": 4096} | values)
