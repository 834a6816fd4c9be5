"""The shape of a Gemma."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from groundup.base.errors import CheckpointError
from groundup.models.configs.llama import LlamaConfig


class GemmaConfig(LlamaConfig):
    """Gemma (Gemma team 2024)."""

    architecture: ClassVar[str] = "GemmaForCausalLM"
    fixed: ClassVar[dict[str, Any]] = {"mlp_bias": False}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "gemma-2b": {
            **{"hidden_size": 2048, "intermediate_size": 16_384, "num_hidden_layers": 18, "num_attention_heads": 8},
            "num_key_value_heads": 1,
        },
        "gemma-7b": {},
    }

    model_type: Literal["gemma"] = "gemma"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=256_000, gt=0)
    """Token ids."""
    hidden_size: int = Field(default=3072, gt=0)
    """Width of the residual stream."""
    intermediate_size: int = Field(default=24_576, gt=0)
    """Width of the gated MLP."""
    num_hidden_layers: int = Field(default=28, gt=0)
    """Blocks."""
    num_attention_heads: int = Field(default=16, gt=0)
    """Query heads."""
    head_dim: int | None = Field(default=256, gt=0)
    """Width of a head, whatever the width of the residual stream."""
    max_position_embeddings: int = Field(default=8192, gt=0)
    """Longest context the model is meant for, in tokens."""
    hidden_act: str = "gelu_pytorch_tanh"
    """Activation of the gate."""
    tie_word_embeddings: bool = True
    """Whether the output head is the embedding matrix."""

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The first files say `gelu` where the model was trained with its tanh form; others name it a second time in
        `hidden_activation`. Attention in both directions is not built here.
        """
        values = {"num_key_value_heads": 16} | super().translate(values)
        if values.pop("use_bidirectional_attention", None):
            raise CheckpointError("config.json: use_bidirectional_attention is not supported for gemma")
        if values.pop("hidden_activation", None) not in (None, "gelu_pytorch_tanh"):
            raise CheckpointError("config.json: gemma's hidden_activation can only be gelu_pytorch_tanh")
        if values.get("hidden_act") == "gelu":
            values["hidden_act"] = "gelu_pytorch_tanh"
        return values
