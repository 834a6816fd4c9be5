"""The shape of a model put together from parts that are chosen by name."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from groundup.models.configs.base import ModelConfig
from groundup.models.configs.llama import RopeParameters
from groundup.models.configs.mixtral import check_experts

GLAM: dict[str, Any] = {
    **{"vocab_size": 32_000, "norm": "rmsnorm", "positions": "t5", "mlp": "gated", "activation": "gelu"},
    **{
        "gated_experts": False,
        "gate": "gshard",
        "num_experts": 64,
        "decoder_sparse_step": 2,
        "decoder_sparse_first": 0,
    },
    **{"tie_word_embeddings": True, "max_position_embeddings": 1024, "head_dim": 128},
}
"""What the sizes of Du et al. 2021, GLaM, table 4, share. The counts printed there fit a vocabulary of 32,000 tokens,
and one of 256,000 at the largest size alone.
"""

GLAM_2B = {
    **{**GLAM, "hidden_size": 2048, "intermediate_size": 8192},
    **{"num_hidden_layers": 24, "num_attention_heads": 16},
}
FACEBOOK: dict[str, Any] = {
    **{"vocab_size": 50_264, "norm": "layernorm", "norm_eps": 1e-5, "positions": "sinusoidal", "mlp": "dense"},
    **{"activation": "gelu", "bias": True, "gate": "top2", "num_experts": 512, "decoder_sparse_step": 2},
    **{"tie_word_embeddings": True},
}
"""Artetxe et al. 2021, and what the files of the 15B model say."""

SWITCH: dict[str, Any] = {
    **{"vocab_size": 32_128, "norm": "rmsnorm", "positions": "t5", "mlp": "dense", "activation": "relu"},
    **{"gate": "switch", "num_experts": 128, "decoder_sparse_step": 2, "head_dim": 64, "tie_word_embeddings": True},
    **{"max_position_embeddings": 512},
}
"""Fedus et al. 2021, as its checkpoints were released: the layers of encoder and decoder in one stack."""


class PartsConfig(ModelConfig):
    """A decoder from parts. The names are the keys of the tables in `models/text/parts.py`, where more can be added."""

    architecture: ClassVar[str] = "PartsForCausalLM"
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "glam-0.1b-64e": {
            **{**GLAM, "head_dim": 64},
            **{"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
        },
        "glam-1.7b-32e": {**GLAM_2B, "num_experts": 32},
        "glam-1.7b-64e": GLAM_2B,
        "glam-1.7b-128e": {**GLAM_2B, "num_experts": 128},
        "glam-1.7b-256e": {**GLAM_2B, "num_experts": 256},
        "glam-8b-64e": {
            **GLAM,
            **{"hidden_size": 4096, "intermediate_size": 16_384, "num_hidden_layers": 32, "num_attention_heads": 32},
        },
        "glam-64b-64e": {
            **{**GLAM, "vocab_size": 256_000},
            **{"hidden_size": 8192, "intermediate_size": 32_768, "num_hidden_layers": 64, "num_attention_heads": 128},
        },
        "switch-base": {
            **SWITCH,
            **{"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 24, "num_attention_heads": 12},
        },
        "switch-large": {
            **SWITCH,
            **{"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 48, "num_attention_heads": 16},
        },
        "switch-xxl": {
            **{**SWITCH, "mlp": "gated", "activation": "gelu", "tie_word_embeddings": False},
            **{"hidden_size": 4096, "intermediate_size": 10_240, "num_hidden_layers": 48, "num_attention_heads": 64},
        },
        "switch-c": {
            **{**SWITCH, "num_experts": 2048, "decoder_sparse_step": 1, "tie_word_embeddings": False},
            **{"expert_capacity": 1.0, "hidden_size": 2080, "intermediate_size": 6144, "num_hidden_layers": 30},
            "num_attention_heads": 30,
        },
        "facebook-moe-15b": {
            **FACEBOOK,
            **{"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
        },
        "facebook-moe-52b": {
            **FACEBOOK,
            **{"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
        },
        "facebook-moe-207b": {
            **FACEBOOK,
            **{"hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32},
        },
        "facebook-moe-1.1t": {
            **FACEBOOK,
            **{"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32},
        },
    }

    model_type: Literal["parts"] = "parts"
    """The family."""
    vocab_size: int = Field(default=4096, gt=0)
    """Token ids."""
    hidden_size: int = Field(default=128, gt=0)
    """Width of the residual stream."""
    num_hidden_layers: int = Field(default=4, gt=0)
    """Blocks."""
    num_attention_heads: int = Field(default=4, gt=0)
    """Query heads."""
    norm: str = "rmsnorm"
    """rmsnorm, layernorm, std_layernorm (deviation in place of the variance's root)."""
    residual: str = "pre"
    """Where the norms stand: pre, post, sandwich, end (of each branch alone), deepnorm."""
    positions: str = "rope"
    """rope, rope_interleaved, learned, sinusoidal, alibi, kerple_power, kerple_log, t5, shaw, transformer_xl, none."""
    attention: str = "mha"
    """mha, gqa, mqa, gated, performer, dual_chunk, gated_delta."""
    mask: str = "causal"
    """causal, alternating (dense and banded layers), strided, fixed (sparse), prefix, unilm, blank_infilling."""
    mlp: str = "gated"
    """gated, dense."""
    activation: str = "silu"
    """Of the MLP, or of its gate: silu, gelu, gelu_new, relu, relu2, mish, sigmoid, tanh, linear."""
    gate: str | None = None
    """Experts in place of the MLP, and how they are chosen: dense, top_k, gshard, switch, top2, base, expert_choice,
    group_limited, loss_free; no experts when not given.
    """
    initializer: str | None = None
    """normal, gpt2, xavier, orthogonal, deepnorm; deepnorm for such blocks and else normal when not given."""

    num_key_value_heads: int | None = Field(default=None, gt=0)
    """Of gqa and later kinds; half of the heads when not given. mha has all, mqa one."""
    intermediate_size: int | None = Field(default=None, gt=0)
    """Width of the MLP; 4 times hidden_size when not given, 2/3 of that if gated, in multiples of 8."""
    head_dim: int | None = Field(default=None, gt=0)
    """Width of a head; hidden_size / num_attention_heads when not given."""
    num_experts: int = Field(default=8, gt=0)
    """gate: experts in a layer."""
    num_experts_per_tok: int = Field(default=2, gt=0)
    """gate: experts that a token goes to; dense has all, switch and base one, gshard and top2 two."""
    decoder_sparse_step: int = Field(default=1, gt=0)
    """gate: every so many layers one has experts."""
    decoder_sparse_first: int | None = Field(default=None, ge=0)
    """gate: the first layer that has; the last of the first so many when not given."""
    moe_intermediate_size: int | None = Field(default=None, gt=0)
    """gate: width of an expert; intermediate_size when not given."""
    gated_experts: bool | None = None
    """gate: whether experts are gated; as mlp says when not given."""
    shared_expert_intermediate_size: int | None = Field(default=None, gt=0)
    """gate: width of an expert that every token visits; none when not given."""
    expert_dropout: float = Field(default=0.0, ge=0, lt=1)
    """gate: of the inner activations of experts."""
    expert_capacity: float | None = Field(default=None, gt=0)
    """gate: tokens that an expert takes in training, by an even share; what the gate is known with when not given."""
    router_aux_loss_coef: float | None = Field(default=None, ge=0)
    """gate: coefficient of the loss that evens loads; what the gate is known with when not given."""
    router_z_loss_coef: float = Field(default=0.0, ge=0)
    """gate: coefficient of the loss that keeps the gate's logits small."""
    norm_eps: float = 1e-6
    """Added where a norm divides."""
    bias: bool = False
    """Whether the linear layers of attention and MLP have biases."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of embeddings, attention weights and branches."""
    sliding_window: int | None = Field(default=None, gt=0)
    """causal: tokens that each token sees, itself included; all before it when not given. alternating: the band."""
    stride: int = Field(default=16, gt=0)
    """strided, fixed: reach of the near tokens, and distance of the far ones."""
    rope_parameters: RopeParameters = RopeParameters()
    """Rotary positions."""
    position_buckets: int = Field(default=32, ge=4)
    """t5: rows of the table."""
    max_distance: int = Field(default=128, gt=1)
    """t5: distances from here on share a bucket. shaw: they share a vector. dual_chunk: the longest distance."""
    memory_length: int | None = Field(default=None, gt=0)
    """transformer_xl: remember the hidden vectors of that many tokens of earlier segments, in training too."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """The sizes that follow from others."""
        if not isinstance(values, Mapping):
            return values
        filled = dict(values)
        get = lambda name: filled.get(name, cls.model_fields[name].default)  # noqa: E731
        heads, width = get("num_attention_heads"), get("hidden_size")
        if not isinstance(heads, int) or not isinstance(width, int):
            return values  # the fields will say so
        kv_heads = {"mha": heads, "mqa": 1}.get(str(get("attention")), get("num_key_value_heads") or max(heads // 2, 1))
        filled["num_key_value_heads"] = kv_heads
        if filled.get("intermediate_size") is None:
            filled["intermediate_size"] = -(-8 * width // 24) * 8 if get("mlp") == "gated" else 4 * width
        fixed = {"dense": get("num_experts"), "switch": 1, "base": 1, "gshard": 2, "top2": 2}.get(str(get("gate")))
        if fixed is not None:
            filled.setdefault("num_experts_per_tok", fixed)
        return filled

    @model_validator(mode="after")
    def _experts(self) -> "PartsConfig":
        if self.gate is None:
            return self
        each, experts = self.num_experts_per_tok, self.num_experts
        fixed = {"dense": experts, "switch": 1, "base": 1, "gshard": 2, "top2": 2}.get(self.gate, each)
        if each != fixed:
            raise ValueError(f"gate {self.gate} sends a token to {fixed} experts: num_experts_per_tok cannot be {each}")
        check_experts(each, experts, "num_experts")
        if self.first_with_experts >= self.num_hidden_layers:
            raise ValueError(
                f"layer {self.first_with_experts} would be the first with experts (decoder_sparse_first, "
                f"decoder_sparse_step), but there are {self.num_hidden_layers}, from 0 on"
            )
        return self

    @property
    def first_with_experts(self) -> int:
        """The lowest layer whose MLP is a mixture, where there are any."""
        return self.decoder_sparse_step - 1 if self.decoder_sparse_first is None else self.decoder_sparse_first

    def has_experts(self, i: int) -> bool:
        """Whether layer i's MLP is a mixture."""
        above = i - self.first_with_experts
        return self.gate is not None and above >= 0 and above % self.decoder_sparse_step == 0

    @model_validator(mode="after")
    def _heads_divide(self) -> "PartsConfig":
        heads, width = self.num_attention_heads, self.hidden_size
        if self.head_dim is None and width % heads:
            raise ValueError(f"hidden_size ({width}) must be a multiple of num_attention_heads ({heads})")
        if heads % (self.num_key_value_heads or heads):
            raise ValueError(
                f"num_attention_heads ({heads}) must be a multiple of num_key_value_heads ({self.num_key_value_heads})"
            )
        head = self.head_dim or width // heads
        if self.positions.startswith("rope") and int(head * self.rope_parameters.partial_rotary_factor) % 2:
            raise ValueError(f"heads are {head} wide: rotary positions turn pairs, so it must be even")
        if self.memory_length is not None and self.positions != "transformer_xl":
            raise ValueError(f"memory_length goes with positions transformer_xl, not {self.positions}")
        return self

    def to_hf(self) -> dict[str, Any]:
        """config.json, with the rotary settings that count."""
        return super().to_hf() | {"rope_parameters": self.rope_parameters.used()}
