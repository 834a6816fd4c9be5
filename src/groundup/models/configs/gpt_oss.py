"""The shape of a gpt-oss."""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from groundup.base.errors import CheckpointError
from groundup.models.configs.llama import LlamaConfig, RopeParameters
from groundup.models.configs.mixtral import check_experts
from groundup.models.configs.qwen2 import LayerType

YARN = RopeParameters(
    rope_type="yarn", rope_theta=150_000.0, factor=32.0, original_max_position_embeddings=4096, truncate=False
)


class GptOssConfig(LlamaConfig):
    """gpt-oss-20b and gpt-oss-120b (OpenAI 2025)."""

    architecture: ClassVar[str] = "GptOssForCausalLM"
    aliases: ClassVar[dict[str, str]] = {"num_experts": "num_local_experts"}
    harmless: ClassVar[frozenset[str]] = frozenset({"initial_context_length", "output_router_logits", "swiglu_alpha"})
    fixed: ClassVar[dict[str, Any]] = {"mlp_bias": False}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "gpt-oss-20b": {"num_hidden_layers": 24, "num_local_experts": 32},
        "gpt-oss-120b": {},
    }

    model_type: Literal["gpt_oss"] = "gpt_oss"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=201_088, gt=0)
    """Token ids."""
    hidden_size: int = Field(default=2880, gt=0)
    """Width of the residual stream."""
    intermediate_size: int = Field(default=2880, gt=0)
    """Width of each expert."""
    num_hidden_layers: int = Field(default=36, gt=0)
    """Blocks."""
    num_attention_heads: int = Field(default=64, gt=0)
    """Query heads."""
    num_key_value_heads: int | None = Field(default=8, gt=0)
    """Key-value heads; as many as query heads when not given."""
    head_dim: int | None = Field(default=64, gt=0)
    """Width of a head, whatever the width of the residual stream."""
    max_position_embeddings: int = Field(default=131_072, gt=0)
    """Longest context the model is meant for, in tokens."""
    rms_norm_eps: float = 1e-5
    """Added to the mean square in RMSNorm."""
    rope_parameters: RopeParameters = YARN
    """Rotary positions."""
    attention_bias: bool = True
    """Biases on the four projections of attention."""
    sliding_window: int = Field(default=128, gt=0)
    """Tokens that each token sees in layers with a window, itself included."""
    layer_types: list[LayerType] | None = None
    """What each layer sees; a window and everything in turn when not given."""
    num_local_experts: int = Field(default=128, gt=0)
    """Experts in a layer."""
    num_experts_per_tok: int = Field(default=4, gt=0)
    """Experts that a token goes to."""
    swiglu_limit: float = Field(default=7.0, gt=0)
    """Where gate and up projection of an expert are cut."""
    router_aux_loss_coef: float = Field(default=0.001, ge=0)
    """Coefficient of the loss that evens the loads of experts, in training."""

    @model_validator(mode="after")
    def _experts_and_layers(self) -> "GptOssConfig":
        check_experts(self.num_experts_per_tok, self.num_local_experts, "num_local_experts")
        if self.layer_types is not None and len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(
                f"layer_types tells of {len(self.layer_types)} layers, num_hidden_layers of {self.num_hidden_layers}"
            )
        return self

    def window(self, i: int) -> int | None:
        """How many tokens layer i sees; None for all."""
        by_number: LayerType = "full_attention" if i % 2 else "sliding_attention"
        kind = by_number if self.layer_types is None else self.layer_types[i]
        return self.sliding_window if kind == "sliding_attention" else None

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Experts in 4 bits (MXFP4) are widened while they are loaded, so the settings of that form are left behind."""
        values = dict(super().translate(values))
        method = (values.pop("quantization_config", None) or {}).get("quant_method", "mxfp4")
        if method != "mxfp4":
            raise CheckpointError(f"config.json: weights quantized by `{method}` are not supported for gpt_oss")
        if values.get("swiglu_alpha", 1.702) != 1.702:
            raise CheckpointError(f"config.json: swiglu_alpha is 1.702 for gpt_oss, not {values['swiglu_alpha']}")
        if "experts_per_token" in values:
            values.setdefault("num_experts_per_tok", values.pop("experts_per_token"))
        return values

    def to_hf(self) -> dict[str, Any]:
        """config.json, with a type for each layer."""
        windows = [self.window(i) for i in range(self.num_hidden_layers)]
        types = ["full_attention" if window is None else "sliding_attention" for window in windows]
        return super().to_hf() | {"layer_types": types}
