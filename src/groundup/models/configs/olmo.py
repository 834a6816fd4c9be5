"""The shape of an OLMo."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from groundup.models.configs.llama import LlamaConfig


class OlmoConfig(LlamaConfig):
    """OLMo (Groeneveld et al. 2024)."""

    architecture: ClassVar[str] = "OlmoForCausalLM"
    fixed: ClassVar[dict[str, Any]] = {"head_dim": None, "mlp_bias": False, "rms_norm_eps": 1e-5}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "olmo-1b": {
            **{"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 16},
            "tie_word_embeddings": True,
        },
        "olmo-7b": {},
        "olmo-1.7-7b": {"max_position_embeddings": 4096, "clip_qkv": 8.0},
    }

    model_type: Literal["olmo"] = "olmo"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=50_304, gt=0)
    """Token ids."""
    max_position_embeddings: int = Field(default=2048, gt=0)
    """Longest context the model is meant for, in tokens."""
    rms_norm_eps: float = 1e-5
    """Added to the variance in LayerNorm; no other number is known."""
    clip_qkv: float | None = Field(default=None, gt=0)
    """Queries, keys and values are kept between -clip_qkv and clip_qkv."""

    def to_hf(self) -> dict[str, Any]:
        """config.json, which leaves the width of a head to follow from the others."""
        return {name: value for name, value in super().to_hf().items() if name != "head_dim"}
