"""The shape of a Gemma 2."""

from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveFloat

from groundup.base.errors import CheckpointError
from groundup.models.configs.gemma import GemmaConfig
from groundup.models.configs.layer_kinds import LayerKinds


class Gemma2Config(GemmaConfig, LayerKinds):
    """Gemma 2 (Gemma team 2024)."""

    architecture: ClassVar[str] = "Gemma2ForCausalLM"
    aliases: ClassVar[dict[str, str]] = {"hidden_activation": "hidden_act"}
    harmless: ClassVar[frozenset[str]] = frozenset({"cache_implementation", "sliding_window_size"})
    period: ClassVar[int] = 2
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "gemma-2-2b": {},
        "gemma-2-9b": {
            **{"hidden_size": 3584, "intermediate_size": 14_336, "num_hidden_layers": 42, "num_attention_heads": 16},
            "num_key_value_heads": 8,
        },
        "gemma-2-27b": {
            **{"hidden_size": 4608, "intermediate_size": 36_864, "num_hidden_layers": 46, "num_attention_heads": 32},
            **{"num_key_value_heads": 16, "head_dim": 128, "query_pre_attn_scalar": 144},
        },
    }

    model_type: Literal["gemma2"] = "gemma2"  # type: ignore[assignment]
    """The family."""
    hidden_size: int = Field(default=2304, gt=0)
    """Width of the residual stream."""
    intermediate_size: int = Field(default=9216, gt=0)
    """Width of the gated MLP."""
    num_hidden_layers: int = Field(default=26, gt=0)
    """Blocks."""
    num_attention_heads: int = Field(default=8, gt=0)
    """Query heads."""
    num_key_value_heads: int | None = Field(default=4, gt=0)
    """Key-value heads."""
    query_pre_attn_scalar: int = Field(default=256, gt=0)
    """Scores are divided by its square root, in place of that of head_dim."""
    attn_logit_softcapping: PositiveFloat | None = 50.0
    """Bound of the scores."""
    final_logit_softcapping: PositiveFloat | None = 30.0
    """Bound of the logits."""

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Attention in both directions is not built here; a `hidden_act` beside the activation is the older name."""
        values = cls.kinds_from_number(values)
        if values.pop("use_bidirectional_attention", None):
            raise CheckpointError(f"config.json: use_bidirectional_attention is not supported for {cls.family()}")
        if "hidden_activation" in values:
            values.pop("hidden_act", None)
        return values

    @classmethod
    def from_hf(cls, values: dict[str, Any]) -> Any:
        """As of every config; a cap or window that is null is none."""
        config = super().from_hf(values)
        absent = {name: None for name in NULLABLE if name in values and values[name] is None}
        return config.model_copy(update=absent)


NULLABLE = ("attn_logit_softcapping", "final_logit_softcapping", "sliding_window")
"""Fields whose null says something else than their absence."""
