"""The shape of a GLM-4 in transformers' layout."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from groundup.models.configs.llama import LlamaConfig, RopeParameters


class GlmConfig(LlamaConfig):
    """GLM-4-9B (Zeng et al. 2024) as transformers names its parts; `chatglm` has the layout of the release."""

    partial_rotary: ClassVar[bool] = True
    architecture: ClassVar[str] = "GlmForCausalLM"
    fixed: ClassVar[dict[str, Any]] = {"mlp_bias": False}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "glm-4-9b-hf": {"max_position_embeddings": 8192},
        "glm-4-9b-chat-hf": {"rope_parameters": {"rope_theta": 5_000_000.0, "partial_rotary_factor": 0.5}},
        "glm-4-9b-chat-1m-hf": {
            **{"num_key_value_heads": 4, "max_position_embeddings": 1_048_576},
            "rope_parameters": {"rope_theta": 100_000_000.0, "partial_rotary_factor": 0.5},
        },
    }

    model_type: Literal["glm"] = "glm"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=151_552, gt=0)
    """Token ids."""
    intermediate_size: int = Field(default=13_696, gt=0)
    """Width of the gated MLP."""
    num_hidden_layers: int = Field(default=40, gt=0)
    """Blocks."""
    num_key_value_heads: int | None = Field(default=2, gt=0)
    """Key-value heads."""
    head_dim: int | None = Field(default=128, gt=0)
    """Width of a head."""
    max_position_embeddings: int = Field(default=131_072, gt=0)
    """Longest context the model is meant for, in tokens."""
    rms_norm_eps: float = 1.5625e-07
    """Added to the mean square in RMSNorm."""
    attention_bias: bool = True
    """Biases on queries, keys and values."""
    rope_parameters: RopeParameters = RopeParameters(partial_rotary_factor=0.5)
    """Rotary positions."""

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The share of a head that is turned may stand beside the rotary settings; without one it is a half."""
        values = dict(super().translate(values))
        share = values.pop("partial_rotary_factor", 0.5)
        rope = {"partial_rotary_factor": share} | (values.get("rope_parameters") or {})
        return values | {"rope_parameters": rope}

    def to_hf(self) -> dict[str, Any]:
        """config.json, which always names the share of a head that is turned."""
        values, share = super().to_hf(), self.rope_parameters.partial_rotary_factor
        return values | {"rope_parameters": values["rope_parameters"] | {"partial_rotary_factor": share}}
