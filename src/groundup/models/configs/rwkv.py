"""The shapes of RWKV-2, 3 and 4, and what all versions share."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from groundup.models.configs.base import ModelConfig

PILE_SIZES: dict[str, dict[str, Any]] = {
    "169m": {"hidden_size": 768, "num_hidden_layers": 12},
    "430m": {"hidden_size": 1024, "num_hidden_layers": 24},
    "1b5": {"hidden_size": 2048, "num_hidden_layers": 24},
    "3b": {"hidden_size": 2560, "num_hidden_layers": 32},
    "7b": {"hidden_size": 4096, "num_hidden_layers": 32},
    "14b": {"hidden_size": 5120, "num_hidden_layers": 40},
}


class RWKVConfig(ModelConfig):
    """What all versions share."""

    fixed: ClassVar[dict[str, Any]] = {"num_attention_heads": 1, "initializer_range": 0.02, "layer_norm_epsilon": 1e-5}
    aliases: ClassVar[dict[str, str]] = {"context_length": "max_position_embeddings"}
    bounded: ClassVar[bool] = False
    harmless: ClassVar[frozenset[str]] = frozenset({"rescale_every"})  # of float16 inference; the same numbers

    vocab_size: int = Field(default=50_277, gt=0)
    """Token ids: 50,277 with the tokenizer of GPT-NeoX (20B), 65,536 with the World tokenizer."""
    hidden_size: int = Field(default=768, gt=0)
    """Width of the residual stream."""
    num_hidden_layers: int = Field(default=12, gt=0)
    """Blocks."""
    num_attention_heads: int = Field(default=1, gt=0)
    """Channels are not grouped into heads before version 5."""
    intermediate_size: int | None = Field(default=None, gt=0)
    """Width of channel mixing; 4 times hidden_size when not given (3.5 times in versions 5 and 6)."""
    layer_norm_epsilon: float = 1e-5
    """Added to the variance in LayerNorm."""
    max_position_embeddings: int = Field(default=1024, gt=0)
    """The context of training, in tokens; nothing ends there."""

    @property
    def hidden_width(self) -> int:
        """Width of channel mixing."""
        return self.intermediate_size or 4 * self.hidden_size

    def to_hf(self) -> dict[str, Any]:
        """config.json, with the width that follows from others."""
        return super().to_hf() | {"intermediate_size": self.hidden_width}


class RWKV2Config(RWKVConfig):
    """RWKV-2 (Peng 2022, RWKV-v2-RNN)."""

    architecture: ClassVar[str] = "RWKV2"
    sizes: ClassVar[dict[str, dict[str, Any]]] = {"rwkv-2-pile-430m": PILE_SIZES["430m"]}

    model_type: Literal["rwkv2"] = "rwkv2"
    """The family."""
    max_position_embeddings: int = Field(default=768, gt=0)
    """The context of training, in tokens; nothing ends there."""
    wkv_epsilon: float = Field(default=1e-9, gt=0)
    """Added to the denominator of the weighted mean: 1e-9 in the models of the Pile."""


class RWKV3Config(RWKVConfig):
    """RWKV-3 (Peng 2022)."""

    architecture: ClassVar[str] = "RWKV3"
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        f"rwkv-3-pile-{name}": PILE_SIZES[name] for name in ("169m", "430m", "1b5")
    }

    model_type: Literal["rwkv3"] = "rwkv3"
    """The family."""
    max_position_embeddings: int = Field(default=768, gt=0)
    """The context of training, in tokens; nothing ends there."""
    wkv_epsilon: float = Field(default=1e-8, gt=0)
    """Added to the denominator of the weighted mean."""


class RWKV4Config(RWKVConfig):
    """RWKV-4 (Peng et al. 2023), called `rwkv` in Hugging Face's files."""

    architecture: ClassVar[str] = "RwkvForCausalLM"
    sizes: ClassVar[dict[str, dict[str, Any]]] = {f"rwkv-4-pile-{name}": size for name, size in PILE_SIZES.items()}

    model_type: Literal["rwkv"] = "rwkv"
    """The family."""
    attention_hidden_size: int | None = Field(default=None, gt=0)
    """Channels of time mixing; hidden_size when not given."""

    @property
    def channels(self) -> int:
        """Channels of time mixing."""
        return self.attention_hidden_size or self.hidden_size

    def to_hf(self) -> dict[str, Any]:
        """config.json, with the widths that follow from others."""
        return super().to_hf() | {"attention_hidden_size": self.channels}
