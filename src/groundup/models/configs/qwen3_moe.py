"""The shape of a Qwen3-MoE."""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from groundup.models.configs.mixtral import check_experts
from groundup.models.configs.qwen3 import ROPE, Qwen3Config


class Qwen3MoeConfig(Qwen3Config):
    """Qwen3-30B-A3B and 235B-A22B (Yang et al. 2025)."""

    architecture: ClassVar[str] = "Qwen3MoeForCausalLM"
    harmless: ClassVar[frozenset[str]] = frozenset({"output_router_logits"})
    fixed: ClassVar[dict[str, Any]] = {"mlp_bias": False, "layer_types": None}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "qwen3-30b-a3b": {
            **ROPE,
            "head_dim": 128,
            "num_hidden_layers": 48,
            "max_window_layers": 48,
            "norm_topk_prob": True,
        },
        "qwen3-235b-a22b": {
            **ROPE,
            "head_dim": 128,
            **{"hidden_size": 4096, "intermediate_size": 12_288, "moe_intermediate_size": 1536},
            **{"num_hidden_layers": 94, "num_attention_heads": 64, "max_window_layers": 94, "norm_topk_prob": True},
        },
    }

    model_type: Literal["qwen3_moe"] = "qwen3_moe"  # type: ignore[assignment]
    """The family."""
    hidden_size: int = Field(default=2048, gt=0)
    """Width of the residual stream."""
    intermediate_size: int = Field(default=6144, gt=0)
    """Width of the gated MLP in layers without experts."""
    num_hidden_layers: int = Field(default=24, gt=0)
    """Blocks."""
    num_key_value_heads: int | None = Field(default=4, gt=0)
    """Key-value heads; as many as query heads when not given."""
    head_dim: int | None = Field(default=None, gt=0)
    """Width of a head; hidden_size / num_attention_heads when not given."""
    num_experts: int = Field(default=128, gt=0)
    """Experts in a layer."""
    num_experts_per_tok: int = Field(default=8, gt=0)
    """Experts that a token goes to."""
    moe_intermediate_size: int = Field(default=768, gt=0)
    """Width of each expert."""
    norm_topk_prob: bool = False
    """Whether the weights of a token's experts are made to sum to 1."""
    decoder_sparse_step: int = Field(default=1, gt=0)
    """Every so many layers one has experts: the last of them."""
    mlp_only_layers: list[int] = []
    """Layers without experts."""
    router_aux_loss_coef: float = Field(default=0.001, ge=0)
    """Coefficient of the loss that evens the loads of experts, in training."""

    @model_validator(mode="after")
    def _enough_experts(self) -> "Qwen3MoeConfig":
        check_experts(self.num_experts_per_tok, self.num_experts, "num_experts")
        return self

    def has_experts(self, i: int) -> bool:
        """Whether layer i's MLP is a mixture."""
        return i not in self.mlp_only_layers and (i + 1) % self.decoder_sparse_step == 0

    def window(self, i: int) -> int | None:
        """How many tokens a layer sees: where there is a window, all layers have it."""
        return self.sliding_window if self.use_sliding_window else None

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A file without key-value heads means 4; transformers writes the number of experts under either name."""
        values = {"num_key_value_heads": 4} | values
        if "num_local_experts" in values:
            values.setdefault("num_experts", values.pop("num_local_experts"))
        return super().translate(values)

    def to_hf(self) -> dict[str, Any]:
        """config.json, which has no types of layers."""
        return {name: value for name, value in super().to_hf().items() if name != "layer_types"}
