"""The shape of a MiniCPM."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from groundup.models.configs.llama import LlamaConfig


class MiniCPMConfig(LlamaConfig):
    """MiniCPM (Hu et al. 2024)."""

    architecture: ClassVar[str] = "MiniCPMForCausalLM"
    fixed: ClassVar[dict[str, Any]] = {"head_dim": None, "mlp_bias": False}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "minicpm-1b": {
            **{"vocab_size": 73_440, "hidden_size": 1536, "intermediate_size": 3840, "num_hidden_layers": 52},
            **{"num_attention_heads": 24, "num_key_value_heads": 8},
        },
        "minicpm-2b": {},
    }

    model_type: Literal["minicpm"] = "minicpm"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=122_753, gt=0)
    """Token ids."""
    hidden_size: int = Field(default=2304, gt=0)
    """Width of the residual stream."""
    intermediate_size: int = Field(default=5760, gt=0)
    """Width of the gated MLP."""
    num_hidden_layers: int = Field(default=40, gt=0)
    """Blocks."""
    num_attention_heads: int = Field(default=36, gt=0)
    """Query heads."""
    max_position_embeddings: int = Field(default=4096, gt=0)
    """Longest context the model is meant for, in tokens."""
    rms_norm_eps: float = 1e-5
    """Added to the mean square in RMSNorm."""
    scale_emb: float = Field(default=12.0, gt=0)
    """Factor of the token vectors."""
    scale_depth: float = Field(default=1.4, gt=0)
    """Each branch is multiplied by this over the square root of the number of layers."""
    dim_model_base: int = Field(default=256, gt=0)
    """Hidden vectors are divided by hidden_size over this before the head."""
    tie_word_embeddings: bool = True
    """Whether the output head is the embedding matrix."""

    def to_hf(self) -> dict[str, Any]:
        """config.json, which leaves the width of a head to follow from the others."""
        return {name: value for name, value in super().to_hf().items() if name != "head_dim"}
