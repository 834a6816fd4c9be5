"""The shape of a GPT-J."""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from groundup.models.configs.gpt2 import GPT2Config, Probability


class GPTJConfig(GPT2Config):
    """GPT-J 6B (Wang & Komatsuzaki 2021)."""

    architecture: ClassVar[str] = "GPTJForCausalLM"
    harmless: ClassVar[frozenset[str]] = GPT2Config.harmless | {"rotary", "tokenizer_class"}
    fixed: ClassVar[dict[str, Any]] = {"mlp_pdrop": None}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {"gpt-j-6b": {}}

    model_type: Literal["gptj"] = "gptj"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=50_400, gt=0)
    """Token ids, those of GPT-2 and some that no text has."""
    hidden_size: int = Field(default=4096, gt=0)
    """Width of the residual stream."""
    num_hidden_layers: int = Field(default=28, gt=0)
    """Blocks."""
    num_attention_heads: int = Field(default=16, gt=0)
    """Heads."""
    max_position_embeddings: int = Field(default=2048, gt=0)
    """Longest context the model is meant for, in tokens."""
    rotary_dim: int | None = Field(default=64, gt=0)
    """Features of a head that are turned; all when not given."""
    embd_pdrop: Probability = 0.0
    """Dropout after the embeddings."""
    attn_pdrop: Probability = 0.0
    """Dropout of the attention weights."""
    resid_pdrop: Probability = 0.0
    """Dropout of the attention and MLP branches."""
    tie_word_embeddings: bool = False
    """Whether the output head is the embedding matrix."""

    @model_validator(mode="after")
    def _rotation_fits(self) -> "GPTJConfig":
        width = self.hidden_size // self.num_attention_heads
        if self.rotary_dim is not None and (self.rotary_dim > width or self.rotary_dim % 2):
            raise ValueError(f"rotary_dim ({self.rotary_dim}) must be even and at most the width of a head ({width})")
        return self
