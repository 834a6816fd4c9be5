"""The shape of a GLM-4-0414."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from groundup.models.configs.glm import GlmConfig
from groundup.models.configs.llama import RopeParameters


class Glm4Config(GlmConfig):
    """GLM-4-0414, 9B and 32B (Z.ai 2025)."""

    architecture: ClassVar[str] = "Glm4ForCausalLM"
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "glm-4-9b-0414": {},
        "glm-4-32b-0414": {
            **{"hidden_size": 6144, "intermediate_size": 23_040, "num_hidden_layers": 61, "num_attention_heads": 48},
            **{"attention_bias": False},
        },
    }

    model_type: Literal["glm4"] = "glm4"  # type: ignore[assignment]
    """The family."""
    max_position_embeddings: int = Field(default=32_768, gt=0)
    """Longest context the model is meant for, in tokens."""
    rms_norm_eps: float = 1e-5
    """Added to the mean square in RMSNorm."""
    rope_parameters: RopeParameters = RopeParameters(partial_rotary_factor=0.5)
    """Rotary positions."""
