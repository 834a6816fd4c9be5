"""The shape of an OpenELM: widths that grow from layer to layer."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from groundup.base.errors import CheckpointError
from groundup.models.configs.base import ModelConfig

RELEASED: dict[str, Any] = {
    **{"num_gqa_groups": 4, "normalize_qk_projections": True, "tie_word_embeddings": True},
    **{"qkv_multipliers": (0.5, 1.0), "ffn_multipliers": (0.5, 4.0)},
}
"""What all released sizes share."""


class OpenELMConfig(ModelConfig):
    """OpenELM (Mehta et al. 2024)."""

    architecture: ClassVar[str] = "OpenELMForCausalLM"
    aliases: ClassVar[dict[str, str]] = {
        "model_dim": "hidden_size",
        "num_transformer_layers": "num_hidden_layers",
        "max_context_length": "max_position_embeddings",
        "activation_fn_name": "hidden_act",
        "share_input_output_layers": "tie_word_embeddings",
    }
    harmless: ClassVar[frozenset[str]] = frozenset({"rope_max_length"})  # rows of a table of cosines
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "openelm-270m": {**RELEASED, "num_hidden_layers": 16, "hidden_size": 1280, "head_dim": 64},
        "openelm-450m": {**RELEASED, "num_hidden_layers": 20, "hidden_size": 1536, "head_dim": 64},
        "openelm-1.1b": {**RELEASED, "num_hidden_layers": 28, "hidden_size": 2048, "head_dim": 64},
        "openelm-3b": {**RELEASED, "num_hidden_layers": 36, "hidden_size": 3072, "head_dim": 128},
    }

    model_type: Literal["openelm"] = "openelm"
    """The family."""
    vocab_size: int = Field(default=32_000, gt=0)
    """Token ids."""
    hidden_size: int = Field(default=2048, gt=0)
    """Width of the residual stream."""
    num_hidden_layers: int = Field(default=12, gt=0)
    """Blocks."""
    num_attention_heads: int = Field(default=16, gt=0)
    """Query heads of a layer whose multiplier is 1; hidden_size / head_dim when not given."""
    head_dim: int = Field(default=128, gt=0, multiple_of=2)
    """Width of a head; hidden_size / num_attention_heads when only that is given."""
    num_gqa_groups: int = Field(default=1, gt=0)
    """Query heads that share a key-value head."""
    qkv_multipliers: PositiveFloat | tuple[PositiveFloat, PositiveFloat] = 1.0
    """Width of the queries by hidden_size: of all layers, or of the first and the last."""
    ffn_multipliers: PositiveFloat | tuple[PositiveFloat, ...] = 4.0
    """Width of the MLP by hidden_size: of all layers, of the first and the last, or of each."""
    ffn_dim_divisor: int = Field(default=256, gt=0)
    """The MLP's width is a multiple of this."""
    ffn_with_glu: bool = True
    """Whether the MLP is gated."""
    hidden_act: str = "swish"
    """Activation of the MLP, or of its gate."""
    normalize_qk_projections: bool = False
    """RMSNorm over each head's queries and keys."""
    normalization_layer_name: Literal["rms_norm"] = "rms_norm"
    """The norm."""
    rope_freq_constant: float = Field(default=10_000.0, gt=0)
    """Base of the rotary wavelengths."""

    @model_validator(mode="before")
    @classmethod
    def _heads_and_their_width(cls, values: Any) -> Any:
        """Each follows from the other."""
        if not isinstance(values, Mapping):
            return values
        width = values.get("hidden_size", cls.model_fields["hidden_size"].default)
        heads, each = values.get("num_attention_heads"), values.get("head_dim")
        if not isinstance(width, int) or not isinstance(heads or each or 1, int):
            return values  # the fields will say so
        if each is None and heads:
            return {**values, "head_dim": width // heads}
        return {"num_attention_heads": max(width // (each or cls.model_fields["head_dim"].default), 1), **values}

    @model_validator(mode="after")
    def _widths_fit(self) -> Self:
        if self.num_attention_heads != max(self.hidden_size // self.head_dim, 1):
            raise ValueError(
                f"num_attention_heads ({self.num_attention_heads}) times head_dim ({self.head_dim}) must be "
                f"hidden_size ({self.hidden_size})"
            )
        told, layers = self.ffn_multipliers, self.num_hidden_layers
        if isinstance(told, tuple) and len(told) not in (2, layers):
            raise ValueError(f"ffn_multipliers has {len(told)} numbers: one, two or {layers}, one a layer, are needed")
        return self

    @property
    def query_heads(self) -> tuple[int, ...]:
        """Query heads of each layer."""
        step = self.head_dim * self.num_gqa_groups
        widths = (multiple_of(self.hidden_size * m, step) for m in spread(self.qkv_multipliers, self.num_hidden_layers))
        return tuple(width // self.head_dim for width in widths)

    @property
    def key_value_heads(self) -> tuple[int, ...]:
        """Key-value heads of each layer."""
        return tuple(heads // self.num_gqa_groups for heads in self.query_heads)

    @property
    def mlp_widths(self) -> tuple[int, ...]:
        """Width of each layer's MLP."""
        multipliers = spread(self.ffn_multipliers, self.num_hidden_layers)
        return tuple(multiple_of(m * self.hidden_size, self.ffn_dim_divisor) for m in multipliers)

    @classmethod
    def from_hf(cls, values: dict[str, Any]) -> Self:
        """Read a config.json; the heads that it lists must be those that follow from its multipliers."""
        listed = {"num_query_heads": "query_heads", "num_kv_heads": "key_value_heads"}
        config = super().from_hf({name: value for name, value in values.items() if name not in listed})
        for name, own in listed.items():
            told, follow = values.get(name), getattr(config, own)
            if isinstance(told, list) and tuple(told) != follow:
                raise CheckpointError(
                    f"config.json lists {name} {told}, but qkv_multipliers {config.qkv_multipliers}, num_gqa_groups "
                    f"{config.num_gqa_groups} and head_dim {config.head_dim} give {list(follow)}"
                )
        return config

    def to_hf(self) -> dict[str, Any]:
        """config.json as released: a multiplier for each layer's MLP, and lists of heads."""
        values = super().to_hf()
        del values["num_attention_heads"]
        values["ffn_multipliers"] = list(spread(self.ffn_multipliers, self.num_hidden_layers))
        return values | {"num_query_heads": list(self.query_heads), "num_kv_heads": list(self.key_value_heads)}


def spread(multipliers: float | tuple[float, ...], layers: int) -> tuple[float, ...]:
    """A multiplier for each layer: the one, those given, or evenly from a first to a last, to two decimals."""
    if not isinstance(multipliers, tuple):
        return (multipliers,) * layers
    if len(multipliers) != 2 or layers < 2:
        return multipliers[:layers]
    first, last = multipliers
    step = (last - first) / (layers - 1)
    return tuple(round(100 * m) / 100 for m in (*(first + step * i for i in range(layers - 1)), last))


def multiple_of(width: float, divisor: int) -> int:
    """The nearest multiple, at least one, and the next one where that loses more than a tenth (as in MobileNet)."""
    near = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return near + divisor if near < 0.9 * width else near
