"""The shape of a Phi-3."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from groundup.models.configs.llama import LlamaConfig

Probability = Annotated[float, Field(ge=0, lt=1)]


class Phi3Config(LlamaConfig):
    """Phi-3 (Abdin et al. 2024), with 4k and 128k tokens of context."""

    partial_rotary: ClassVar[bool] = True
    architecture: ClassVar[str] = "Phi3ForCausalLM"
    harmless: ClassVar[frozenset[str]] = frozenset({"original_max_position_embeddings"})
    fixed: ClassVar[dict[str, Any]] = {"head_dim": None, "attention_bias": False, "mlp_bias": False}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "phi-3-mini-4k": {"sliding_window": 2047},
        "phi-3-medium-4k": {
            **{"hidden_size": 5120, "intermediate_size": 17_920, "num_hidden_layers": 40, "num_attention_heads": 40},
            **{"num_key_value_heads": 10, "sliding_window": 2047},
        },
    }

    model_type: Literal["phi3"] = "phi3"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=32_064, gt=0)
    """Token ids."""
    hidden_size: int = Field(default=3072, gt=0)
    """Width of the residual stream."""
    intermediate_size: int = Field(default=8192, gt=0)
    """Width of the gated MLP."""
    max_position_embeddings: int = Field(default=4096, gt=0)
    """Longest context the model is meant for, in tokens."""
    rms_norm_eps: float = 1e-5
    """Added to the mean square in RMSNorm."""
    sliding_window: int | None = Field(default=None, gt=0)
    """Tokens that each token sees, itself included; all before it when not given."""
    embd_pdrop: Probability = 0.0
    """Written in the files, and used by no version of the model."""
    resid_pdrop: Probability = 0.0
    """Dropout of the attention and MLP branches."""

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The share of a head that is turned, and the context before stretching, stand beside the rotary settings."""
        values = dict(super().translate(values))
        rope = dict(values.get("rope_parameters") or {})
        if "partial_rotary_factor" in values:
            rope.setdefault("partial_rotary_factor", values.pop("partial_rotary_factor"))
        if rope.get("rope_type") == "longrope":
            rope["original_max_position_embeddings"] = values.get("original_max_position_embeddings", 4096)
        return values | ({"rope_parameters": rope} if rope else {})

    def to_hf(self) -> dict[str, Any]:
        """config.json, which leaves the width of a head to follow from the others."""
        values = {name: value for name, value in super().to_hf().items() if name != "head_dim"}
        if self.rope_parameters.rope_type == "longrope":
            values["original_max_position_embeddings"] = self.rope_parameters.original_max_position_embeddings
        return values
