"""The shape of a Mixtral."""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from groundup.models.configs.mistral import MistralConfig

MILLION = {"rope_parameters": {"rope_theta": 1_000_000.0}}


class MixtralConfig(MistralConfig):
    """Mixtral 8x7B and 8x22B (Jiang et al. 2024)."""

    architecture: ClassVar[str] = "MixtralForCausalLM"
    harmless: ClassVar[frozenset[str]] = frozenset({"output_router_logits"})
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "mixtral-8x7b": {**MILLION},
        "mixtral-8x22b": {
            **MILLION,
            **{"hidden_size": 6144, "intermediate_size": 16_384, "num_hidden_layers": 56, "num_attention_heads": 48},
            "max_position_embeddings": 65_536,
        },
    }

    model_type: Literal["mixtral"] = "mixtral"  # type: ignore[assignment]
    """The family."""
    num_key_value_heads: int | None = Field(default=8, gt=0)
    """Key-value heads; as many as query heads when not given."""
    rms_norm_eps: float = 1e-5
    """Added to the mean square in RMSNorm."""
    intermediate_size: int = Field(default=14_336, gt=0)
    """Width of each expert."""
    num_local_experts: int = Field(default=8, gt=0)
    """Experts in a layer."""
    num_experts_per_tok: int = Field(default=2, gt=0)
    """Experts that a token goes to."""
    router_aux_loss_coef: float = Field(default=0.001, ge=0)
    """Coefficient of the loss that evens the loads of experts, in training."""
    router_jitter_noise: float = Field(default=0.0, ge=0, lt=1)
    """Noise on what the gate sees, in training."""

    @model_validator(mode="after")
    def _enough_experts(self) -> "MixtralConfig":
        check_experts(self.num_experts_per_tok, self.num_local_experts, "num_local_experts")
        return self

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A file without a window has none; transformers writes the number of experts under either name."""
        values = super().translate({"sliding_window": None} | values)
        if "num_experts" in values:
            values.setdefault("num_local_experts", values.pop("num_experts"))
        return values

    def to_hf(self) -> dict[str, Any]:
        """config.json, which leaves the width of a head to follow from the others where it does."""
        return {name: value for name, value in super().to_hf().items() if name != "head_dim" or self.head_dim}


def check_experts(chosen: int, of: int, name: str) -> None:
    """Refuse more experts a token than there are."""
    if chosen > of:
        raise ValueError(f"num_experts_per_tok ({chosen}) is more than {name} ({of})")
