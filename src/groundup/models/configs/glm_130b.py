"""The shape of a GLM-130B."""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from groundup.models.configs.base import ModelConfig
from groundup.models.configs.glm_2021 import MARKS


class GLM130BConfig(ModelConfig):
    """GLM-130B (Zeng et al. 2022). It was released without a config.json: the names are those of ChatGLM-6B."""

    architecture: ClassVar[str] = "GLM130B"
    aliases: ClassVar[dict[str, str]] = {
        "num_layers": "num_hidden_layers",
        "inner_hidden_size": "intermediate_size",
        "layernorm_epsilon": "layer_norm_epsilon",
        "max_sequence_length": "max_position_embeddings",
        "eos_token_id": "eop_token_id",
    }
    marks: ClassVar[dict[str, tuple[str, ...]]] = {name: MARKS[name] for name in MARKS if name != "smask_token_id"}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {"glm-130b": {}}

    model_type: Literal["glm_130b"] = "glm_130b"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=150_528, gt=0)
    """Token ids."""
    hidden_size: int = Field(default=12_288, gt=0)
    """Width of the residual stream."""
    intermediate_size: int = Field(default=32_768, gt=0)
    """Width of the gated MLP."""
    num_hidden_layers: int = Field(default=70, gt=0)
    """Blocks."""
    num_attention_heads: int = Field(default=96, gt=0)
    """Heads."""
    max_position_embeddings: int = Field(default=2048, gt=0)
    """Longest context the model is meant for, in tokens."""
    layer_norm_epsilon: float = 1e-5
    """Added to the variance in LayerNorm."""
    tie_word_embeddings: bool = True
    """Whether the output head is the embedding matrix."""
    bos_token_id: int = Field(default=150_004, ge=0)
    """[START] (sop), which ends a prompt and begins what is written."""
    mask_token_id: int = Field(default=150_000, ge=0)
    """[MASK], a short blank in the text."""
    gmask_token_id: int = Field(default=150_001, ge=0)
    """[gMASK], a blank of any length at the end."""
    eop_token_id: int = Field(default=150_005, ge=0)
    """[END] (eop), which ends what is written; `eos_token_id` in files."""

    @property
    def masks(self) -> tuple[int, ...]:
        """The ids that stand for blanks."""
        return self.mask_token_id, self.gmask_token_id

    @model_validator(mode="after")
    def _heads_divide(self) -> "GLM130BConfig":
        if self.hidden_size % (4 * self.num_attention_heads):
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of 4 num_attention_heads "
                f"({self.num_attention_heads}): two kinds of positions turn pairs of features of each head"
            )
        return self
