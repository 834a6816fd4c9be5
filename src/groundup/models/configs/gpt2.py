"""The shape of a GPT-2."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from groundup.base.errors import CheckpointError
from groundup.models.configs.base import ModelConfig

Probability = Annotated[float, Field(ge=0, lt=1)]


class GPT2Config(ModelConfig):
    """GPT-2 (Radford et al. 2019)."""

    architecture: ClassVar[str] = "GPT2LMHeadModel"
    aliases: ClassVar[dict[str, str]] = {
        "n_embd": "hidden_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_inner": "intermediate_size",
        "n_positions": "max_position_embeddings",
        "activation_function": "hidden_act",
    }
    harmless: ClassVar[frozenset[str]] = frozenset(
        {
            *("n_ctx", "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type"),
            *("summary_use_proj", "reorder_and_upcast_attn"),
        }
    )
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "gpt2": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
        "gpt2-medium": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
        "gpt2-large": {"hidden_size": 1280, "num_hidden_layers": 36, "num_attention_heads": 20},
        "gpt2-xl": {"hidden_size": 1600, "num_hidden_layers": 48, "num_attention_heads": 25},
    }

    model_type: Literal["gpt2"] = "gpt2"
    """The family."""
    vocab_size: int = Field(default=50257, gt=0)
    """Token ids."""
    hidden_size: int = Field(default=768, gt=0)
    """Width of the residual stream."""
    num_hidden_layers: int = Field(default=12, gt=0)
    """Blocks."""
    num_attention_heads: int = Field(default=12, gt=0)
    """Heads."""
    intermediate_size: int | None = Field(default=None, gt=0)
    """Width of the MLP; 4 times hidden_size when not given."""
    max_position_embeddings: int = Field(default=1024, gt=0)
    """Learned positions: the longest context."""
    hidden_act: str = "gelu_new"
    """Activation of the MLP."""
    layer_norm_epsilon: float = 1e-5
    """Added to the variance in LayerNorm."""
    embd_pdrop: Probability = 0.1
    """Dropout after the embeddings."""
    attn_pdrop: Probability = 0.1
    """Dropout of the attention weights."""
    resid_pdrop: Probability = 0.1
    """Dropout of the attention and MLP branches."""
    mlp_pdrop: Probability | None = None
    """Dropout of the MLP branch alone; as resid_pdrop when not given."""
    tie_word_embeddings: bool = True
    """Whether the output head is the embedding matrix."""

    @model_validator(mode="after")
    def _heads_divide(self) -> "GPT2Config":
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads "
                f"({self.num_attention_heads})"
            )
        return self

    @property
    def heads_width(self) -> int:
        """Width of all heads' queries together."""
        return self.hidden_size

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Refuse the variants of attention that are not built here."""
        if values.pop("scale_attn_by_inverse_layer_idx", False) or not values.pop("scale_attn_weights", True):
            raise CheckpointError("this GPT-2 scales its attention scores in a way that is not supported")
        return values

    def to_hf(self) -> dict[str, Any]:
        """config.json; our fourth dropout rate is written only where it was set."""
        values = super().to_hf()
        if self.mlp_pdrop is None:
            values.pop("mlp_pdrop", None)
        return values
