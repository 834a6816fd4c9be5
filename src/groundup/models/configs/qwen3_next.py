"""The shape of a Qwen3-Next."""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from groundup.base.errors import CheckpointError
from groundup.models.configs.gpt_neox import rotary_part
from groundup.models.configs.llama import LlamaConfig, RopeParameters
from groundup.models.configs.mixtral import check_experts

LayerType = Literal["linear_attention", "full_attention"]


class Qwen3NextConfig(LlamaConfig):
    """Qwen3-Next (Qwen team 2025)."""

    architecture: ClassVar[str] = "Qwen3NextForCausalLM"
    partial_rotary: ClassVar[bool] = True
    harmless: ClassVar[frozenset[str]] = frozenset(
        {
            *("attn_output_gate", "full_attention_interval", "mamba_ssm_dtype", "mtp_num_hidden_layers"),
            *("mtp_use_dedicated_embeddings", "output_gate_type", "output_router_logits"),
        }
    )
    fixed: ClassVar[dict[str, Any]] = {"mlp_bias": False, "hidden_act": "silu"}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "qwen3-next-80b-a3b": {
            **{"intermediate_size": 5120, "max_position_embeddings": 262_144},
            "rope_parameters": {"rope_theta": 10_000_000.0, "partial_rotary_factor": 0.25},
        },
    }

    model_type: Literal["qwen3_next"] = "qwen3_next"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=151_936, gt=0)
    """Token ids."""
    hidden_size: int = Field(default=2048, gt=0)
    """Width of the residual stream."""
    intermediate_size: int = Field(default=5632, gt=0)
    """Width of the gated MLP in layers without experts."""
    num_hidden_layers: int = Field(default=48, gt=0)
    """Blocks."""
    num_attention_heads: int = Field(default=16, gt=0)
    """Query heads of layers with attention."""
    num_key_value_heads: int | None = Field(default=2, gt=0)
    """Key-value heads of layers with attention; as many as query heads when not given."""
    head_dim: int | None = Field(default=256, gt=0)
    """Width of a head of attention, whatever the width of the residual stream."""
    max_position_embeddings: int = Field(default=32_768, gt=0)
    """Longest context the model is meant for, in tokens."""
    rope_parameters: RopeParameters = RopeParameters(partial_rotary_factor=0.25)
    """Rotary positions of layers with attention."""
    linear_num_key_heads: int = Field(default=16, gt=0)
    """Heads of queries and keys in layers with a memory."""
    linear_num_value_heads: int = Field(default=32, gt=0)
    """Heads of values and memories in those layers, a multiple of `linear_num_key_heads`."""
    linear_key_head_dim: int = Field(default=128, gt=0)
    """Width of a head's queries and keys there."""
    linear_value_head_dim: int = Field(default=128, gt=0)
    """Width of a head's values there."""
    linear_conv_kernel_dim: int = Field(default=4, gt=0)
    """Tokens that the convolution there spans."""
    layer_types: list[LayerType] | None = None
    """What each layer has: a memory (linear_attention) or attention; the fourth of every four when not given."""
    num_experts: int = Field(default=512, ge=0)
    """Experts in a layer; 0 for none."""
    num_experts_per_tok: int = Field(default=10, gt=0)
    """Experts that a token goes to."""
    moe_intermediate_size: int = Field(default=512, gt=0)
    """Width of each expert."""
    shared_expert_intermediate_size: int = Field(default=512, gt=0)
    """Width of the expert that every token visits."""
    norm_topk_prob: bool = True
    """Whether the weights of a token's experts are made to sum to 1."""
    decoder_sparse_step: int = Field(default=1, gt=0)
    """Every so many layers one has experts: the last of them."""
    mlp_only_layers: list[int] = []
    """Layers without experts."""
    router_aux_loss_coef: float = Field(default=0.001, ge=0)
    """Coefficient of the loss that evens the loads of experts, in training."""

    @model_validator(mode="after")
    def _every_layer_has_a_type(self) -> "Qwen3NextConfig":
        if self.layer_types is not None and len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(
                f"layer_types tells of {len(self.layer_types)} layers, num_hidden_layers of {self.num_hidden_layers}"
            )
        return self

    @model_validator(mode="after")
    def _memories_divide(self) -> "Qwen3NextConfig":
        if self.linear_num_value_heads % self.linear_num_key_heads:
            raise ValueError(
                f"linear_num_value_heads ({self.linear_num_value_heads}) must be a multiple of linear_num_key_heads "
                f"({self.linear_num_key_heads})"
            )
        return self

    @model_validator(mode="after")
    def _enough_experts(self) -> "Qwen3NextConfig":
        if self.num_experts:
            check_experts(self.num_experts_per_tok, self.num_experts, "num_experts")
        return self

    @property
    def kinds(self) -> list[LayerType]:
        """What each layer has."""
        return by_interval(self.num_hidden_layers, 4) if self.layer_types is None else self.layer_types

    def has_experts(self, i: int) -> bool:
        """Whether layer i's MLP is a mixture."""
        if not self.num_experts or i in self.mlp_only_layers:
            return False
        return (i + 1) % self.decoder_sparse_step == 0

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Every so many layers one has attention where types are not given; a file without key-value heads means 2."""
        share = cls.model_fields["rope_parameters"].default.partial_rotary_factor
        heads = cls.model_fields["num_key_value_heads"].default
        values = rotary_part({"num_key_value_heads": heads} | super().translate(values), share)
        if values.get("layer_types") is None:
            layers = int(values.get("num_hidden_layers", cls.model_fields["num_hidden_layers"].default))
            values["layer_types"] = by_interval(layers, int(values.get("full_attention_interval") or 4))
        known = {"attn_output_gate": True, "output_gate_type": "swish"}
        for name, value in known.items():
            if values.get(name, value) != value:
                raise CheckpointError(f"config.json: {name} {values[name]} is not supported for {cls.family()}")
        return values

    def to_hf(self) -> dict[str, Any]:
        """config.json, with a type for each layer and the share of a head that is turned."""
        values = super().to_hf()
        values["rope_parameters"] |= {"partial_rotary_factor": self.rope_parameters.partial_rotary_factor}
        return values | {"layer_types": self.kinds}


def by_interval(layers: int, interval: int) -> list[LayerType]:
    """Attention in the last of every `interval` layers, a memory in the others."""
    return ["linear_attention" if (i + 1) % interval else "full_attention" for i in range(layers)]
