"""The shape of a DeepSeek-V3."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from groundup.models.configs.deepseek_v2 import DeepseekV2Config


class DeepseekV3Config(DeepseekV2Config):
    """DeepSeek-V3 and R1 (DeepSeek-AI 2024)."""

    architecture: ClassVar[str] = "DeepseekV3ForCausalLM"
    fixed: ClassVar[dict[str, Any]] = {"head_dim": None, "mlp_bias": False, "topk_method": "noaux_tc"}
    scoring: ClassVar[str] = "sigmoid"
    methods: ClassVar[tuple[str, ...]] = ("noaux_tc",)
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "deepseek-v3": {
            "q_lora_rank": 1536,
            "max_position_embeddings": 163_840,
            "rope_parameters": {
                **{"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096},
                **{"mscale": 1.0, "mscale_all_dim": 1.0},
            },
        },
    }

    model_type: Literal["deepseek_v3"] = "deepseek_v3"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=129_280, gt=0)
    """Token ids."""
    hidden_size: int = Field(default=7168, gt=0)
    """Width of the residual stream."""
    intermediate_size: int = Field(default=18_432, gt=0)
    """Width of the gated MLP in layers without experts."""
    num_hidden_layers: int = Field(default=61, gt=0)
    """Blocks."""
    num_attention_heads: int = Field(default=128, gt=0)
    """Heads."""
    n_routed_experts: int = Field(default=256, gt=0)
    """Experts in a layer."""
    num_experts_per_tok: int = Field(default=8, gt=0)
    """Experts that a token goes to."""
    n_shared_experts: int = Field(default=1, ge=0)
    """Experts that every token visits; together they are one MLP of so many times the width."""
    moe_intermediate_size: int = Field(default=2048, gt=0)
    """Width of each expert."""
    first_k_dense_replace: int = Field(default=3, ge=0)
    """The first layers, which have no experts."""
    n_group: int = Field(default=8, gt=0)
    """Groups that the experts stand in."""
    topk_group: int = Field(default=4, gt=0)
    """Groups that a token may visit."""
    topk_method: Literal["greedy", "group_limited_greedy", "noaux_tc"] = "noaux_tc"
    """How experts are chosen: within the best groups, by scores with a bias."""
    norm_topk_prob: bool = True
    """Whether the weights of a token's experts are made to sum to 1."""
    routed_scaling_factor: float = 2.5
    """Factor of the weights."""
    aux_loss_alpha: float = Field(default=0.0001, ge=0)
    """Coefficient of the small loss that evens the loads besides the biases, in training."""
    bias_update_rate: float = Field(default=0.001, ge=0)
    """By what the bias of an expert moves after each update of the weights."""
    rope_interleave: bool = True
    """Whether rotary features are paired with their neighbours, as in the released weights."""

    def to_hf(self) -> dict[str, Any]:
        """config.json; the rate at which biases move is written only where it was set."""
        values = super().to_hf()
        if self.bias_update_rate == type(self).model_fields["bias_update_rate"].default:
            del values["bias_update_rate"]
        return values
