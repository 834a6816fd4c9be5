"""The shape of a Qwen1.5-MoE or Qwen2-MoE."""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from groundup.base.errors import CheckpointError
from groundup.models.configs.mixtral import check_experts
from groundup.models.configs.qwen2 import Qwen2Config


class Qwen2MoeConfig(Qwen2Config):
    """Qwen1.5-MoE-A2.7B and Qwen2-57B-A14B (Yang et al. 2024)."""

    architecture: ClassVar[str] = "Qwen2MoeForCausalLM"
    harmless: ClassVar[frozenset[str]] = frozenset({"output_router_logits", "use_mrope"})
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "qwen1.5-moe-a2.7b": {"max_position_embeddings": 8192, "max_window_layers": 21, **{
            "rope_parameters": {"rope_theta": 1_000_000.0}, "num_key_value_heads": 16}},
        "qwen2-57b-a14b": {
            **{"hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28, "num_attention_heads": 28},
            **{"num_key_value_heads": 4, "moe_intermediate_size": 2560, "shared_expert_intermediate_size": 20_480},
            **{"num_experts": 64, "num_experts_per_tok": 8, "max_position_embeddings": 131_072},
            **{"rope_parameters": {"rope_theta": 1_000_000.0}},
        },
    }  # fmt: skip

    model_type: Literal["qwen2_moe"] = "qwen2_moe"  # type: ignore[assignment]
    """The family."""
    hidden_size: int = Field(default=2048, gt=0)
    """Width of the residual stream."""
    intermediate_size: int = Field(default=5632, gt=0)
    """Width of the gated MLP in layers without experts."""
    num_hidden_layers: int = Field(default=24, gt=0)
    """Blocks."""
    num_attention_heads: int = Field(default=16, gt=0)
    """Query heads."""
    num_experts: int = Field(default=60, gt=0)
    """Experts in a layer."""
    num_experts_per_tok: int = Field(default=4, gt=0)
    """Experts that a token goes to."""
    moe_intermediate_size: int = Field(default=1408, gt=0)
    """Width of each expert."""
    shared_expert_intermediate_size: int = Field(default=5632, gt=0)
    """Width of the expert that every token visits."""
    norm_topk_prob: bool = False
    """Whether the weights of a token's experts are made to sum to 1."""
    decoder_sparse_step: int = Field(default=1, gt=0)
    """Every so many layers one has experts: the last of them."""
    mlp_only_layers: list[int] = []
    """Layers without experts."""
    router_aux_loss_coef: float = Field(default=0.001, ge=0)
    """Coefficient of the loss that evens the loads of experts, in training."""

    @model_validator(mode="after")
    def _enough_experts(self) -> "Qwen2MoeConfig":
        check_experts(self.num_experts_per_tok, self.num_experts, "num_experts")
        return self

    def has_experts(self, i: int) -> bool:
        """Whether layer i's MLP is a mixture."""
        return i not in self.mlp_only_layers and (i + 1) % self.decoder_sparse_step == 0

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A file without key-value heads means 16; biases on queries, keys and values may be named, not left out."""
        values = dict(values)
        if not values.pop("qkv_bias", True):
            raise CheckpointError("config.json: qkv_bias false is not supported for qwen2_moe")
        return super().translate({"num_key_value_heads": 16} | values)

    def window(self, i: int) -> int | None:
        """How many tokens layer i sees; None for all. Here layer types come from the files or alternate."""
        if self.use_sliding_window and self.layer_types is None:
            return self.sliding_window if i % 2 == 0 and i < self.max_window_layers else None
        return super().window(i)

    def to_hf(self) -> dict[str, Any]:
        """config.json, where the width of a head always follows from the others."""
        return {name: value for name, value in super().to_hf().items() if name != "head_dim"}
