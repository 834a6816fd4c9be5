"""The shape of a DeepSeek-V2."""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from groundup.base.errors import CheckpointError
from groundup.models.configs.llama import LlamaConfig
from groundup.models.configs.mixtral import check_experts


class DeepseekV2Config(LlamaConfig):
    """DeepSeek-V2 and V2-Lite (DeepSeek-AI 2024)."""

    architecture: ClassVar[str] = "DeepseekV2ForCausalLM"
    harmless: ClassVar[frozenset[str]] = frozenset(
        {"ep_size", "num_nextn_predict_layers", "output_router_logits", "pretraining_tp", "qk_head_dim", "seq_aux"}
    )
    fixed: ClassVar[dict[str, Any]] = {"head_dim": None, "mlp_bias": False, "norm_topk_prob": False}
    scoring: ClassVar[str] = "softmax"
    methods: ClassVar[tuple[str, ...]] = ("greedy", "group_limited_greedy")
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "deepseek-v2-lite": {
            **{"hidden_size": 2048, "intermediate_size": 10_944, "num_hidden_layers": 27, "num_attention_heads": 16},
            **{"moe_intermediate_size": 1408, "max_position_embeddings": 163_840},
            "rope_parameters": {
                **{"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096},
                **{"mscale": 0.707, "mscale_all_dim": 0.707},
            },
        },
        "deepseek-v2": {
            **{"hidden_size": 5120, "intermediate_size": 12_288, "num_hidden_layers": 60, "num_attention_heads": 128},
            **{"q_lora_rank": 1536, "moe_intermediate_size": 1536, "n_routed_experts": 160, "n_group": 8},
            **{"topk_group": 3, "topk_method": "group_limited_greedy", "routed_scaling_factor": 16.0},
            "max_position_embeddings": 163_840,
            "rope_parameters": {
                **{"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096},
                **{"mscale": 0.707, "mscale_all_dim": 0.707},
            },
        },
    }

    model_type: Literal["deepseek_v2"] = "deepseek_v2"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=102_400, gt=0)
    """Token ids."""
    intermediate_size: int = Field(default=10_944, gt=0)
    """Width of the gated MLP in layers without experts."""
    kv_lora_rank: int = Field(default=512, gt=0)
    """Width of the latent that keys and values are made of."""
    q_lora_rank: int | None = Field(default=None, gt=0)
    """Width of the latent that queries are made of; None for none."""
    qk_nope_head_dim: int = Field(default=128, gt=0)
    """Features of a head's query and key without positions."""
    qk_rope_head_dim: int = Field(default=64, gt=0)
    """Rotary features of a head's query, and of the key that all heads share."""
    v_head_dim: int = Field(default=128, gt=0)
    """Features of a head's value."""
    n_routed_experts: int = Field(default=64, gt=0)
    """Experts in a layer."""
    num_experts_per_tok: int = Field(default=6, gt=0)
    """Experts that a token goes to."""
    n_shared_experts: int = Field(default=2, ge=0)
    """Experts that every token visits; together they are one MLP of so many times the width."""
    moe_intermediate_size: int = Field(default=1408, gt=0)
    """Width of each expert."""
    first_k_dense_replace: int = Field(default=1, ge=0)
    """The first layers, which have no experts."""
    n_group: int = Field(default=1, gt=0)
    """Groups that the experts stand in."""
    topk_group: int = Field(default=1, gt=0)
    """Groups that a token may visit."""
    topk_method: Literal["greedy", "group_limited_greedy", "noaux_tc"] = "greedy"
    """How experts are chosen: among all, or within the best groups."""
    norm_topk_prob: bool = False
    """Whether the weights of a token's experts are made to sum to 1."""
    routed_scaling_factor: float = 1.0
    """Factor of the weights."""
    aux_loss_alpha: float = Field(default=0.001, ge=0)
    """Coefficient of the loss that evens the loads of experts, in training."""

    @model_validator(mode="after")
    def _groups_of_experts(self) -> "DeepseekV2Config":
        check_experts(self.num_experts_per_tok, self.n_routed_experts, "n_routed_experts")
        if (self.num_key_value_heads or self.num_attention_heads) != self.num_attention_heads:
            raise ValueError(
                f"num_key_value_heads ({self.num_key_value_heads}) is num_attention_heads ({self.num_attention_heads}) "
                "here: all heads' keys and values come from one latent"
            )
        if self.n_routed_experts % self.n_group:
            raise ValueError(
                f"n_routed_experts ({self.n_routed_experts}) must be a multiple of n_group ({self.n_group})"
            )
        room = self.topk_group * self.n_routed_experts // self.n_group
        if room < self.num_experts_per_tok and self.topk_method != "greedy":
            raise ValueError(
                f"{self.topk_group} groups hold {room} experts: fewer than {self.num_experts_per_tok} a token"
            )
        if self.topk_method not in self.methods:
            raise ValueError(f"topk_method of {self.family()} is one of {', '.join(self.methods)}")
        return self

    def has_experts(self, i: int) -> bool:
        """Whether layer i's MLP is a mixture."""
        return i >= self.first_k_dense_replace

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The width of a head follows from others here, and one value each is known of some settings. A file without
        `q_lora_rank` means 1536, one with null that queries have no latent.
        """
        values = super().translate(dict(values))
        values.pop("head_dim", None)
        for name, only in (("scoring_func", cls.scoring), ("moe_layer_freq", 1)):
            if values.pop(name, only) != only:
                raise CheckpointError(f"config.json: `{name}` must be {only} for {cls.family()}")
        for name, default in (("n_group", 1), ("topk_group", 1)):
            if values.get(name, default) is None:
                values[name] = default
        if "num_local_experts" in values or "num_experts" in values:
            values.setdefault("n_routed_experts", values.pop("num_local_experts", values.pop("num_experts", None)))
        return {"q_lora_rank": 1536} | values

    def to_hf(self) -> dict[str, Any]:
        """config.json, which leaves the width of a head to follow from the others."""
        return {name: value for name, value in super().to_hf().items() if name != "head_dim"}
