"""The shape of a GPT-3."""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from groundup.models.configs.gpt2 import GPT2Config, Probability
from groundup.models.configs.gpt_neo import AlternatingConfig


def gpt3(layers: int, hidden: int, heads: int, head_dim: int) -> dict[str, Any]:
    """A row of Brown et al. 2020, table 2.1, in its order of columns."""
    return {
        **{"num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads},
        **({} if heads * head_dim == hidden else {"head_dim": head_dim}),
    }


class GPT3Config(AlternatingConfig):
    """GPT-3 (Brown et al. 2020): the eight sizes of table 2.1. Its weights were not published.

    Two rows of the table contradict themselves. 1.3B prints 24 heads of 128, wider than its d_model of 2048 and 1.5B
    parameters in all: here it has the 16 that make 1.3B. 13B prints d_model 5140 with 40 heads of 128, which are 5120:
    here as printed. The width of the local layers' band is not told.
    """

    architecture: ClassVar[str] = "GPT3LMHeadModel"
    aliases: ClassVar[dict[str, str]] = GPT2Config.aliases
    fixed: ClassVar[dict[str, Any]] = {"mlp_pdrop": None}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "gpt3-125m": gpt3(12, 768, 12, 64),
        "gpt3-350m": gpt3(24, 1024, 16, 64),
        "gpt3-760m": gpt3(24, 1536, 16, 96),
        "gpt3-1.3b": gpt3(24, 2048, 16, 128),
        "gpt3-2.7b": gpt3(32, 2560, 32, 80),
        "gpt3-6.7b": gpt3(32, 4096, 32, 128),
        "gpt3-13b": gpt3(40, 5140, 40, 128),
        "gpt3-175b": gpt3(96, 12_288, 96, 128),
    }

    model_type: Literal["gpt3"] = "gpt3"  # type: ignore[assignment]
    """The family."""
    head_dim: int | None = Field(default=None, gt=0)
    """Width of a head; hidden_size / num_attention_heads when not given."""
    max_position_embeddings: int = Field(default=2048, gt=0)
    """Learned positions: the longest context."""
    embd_pdrop: Probability = 0.0
    """Dropout after the embeddings."""
    attn_pdrop: Probability = 0.0
    """Dropout of the attention weights."""
    resid_pdrop: Probability = 0.0
    """Dropout of the attention and MLP branches."""

    @model_validator(mode="after")
    def _heads_divide(self) -> "GPT3Config":
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads "
                f"({self.num_attention_heads}), or head_dim must be given"
            )
        return self

    @property
    def heads_width(self) -> int:
        """Width of all heads' queries together."""
        return self.num_attention_heads * (self.head_dim or self.hidden_size // self.num_attention_heads)
