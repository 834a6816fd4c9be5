"""The shape of a Phi-1, Phi-1.5 or Phi-2."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from groundup.models.configs.gpt2 import GPT2Config, Probability
from groundup.models.configs.gpt_neox import rotary_part
from groundup.models.configs.llama import RopeParameters


class PhiConfig(GPT2Config):
    """Phi-1 (Gunasekar et al. 2023), Phi-1.5 (Li et al. 2023) and Phi-2 (Javaheripi & Bubeck 2023)."""

    architecture: ClassVar[str] = "PhiForCausalLM"
    aliases: ClassVar[dict[str, str]] = {"layer_norm_eps": "layer_norm_epsilon", "attention_dropout": "attn_pdrop"}
    fixed: ClassVar[dict[str, Any]] = {"mlp_pdrop": None}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "phi-1": {},
        "phi-1.5": {},
        "phi-2": {
            **{"hidden_size": 2560, "intermediate_size": 10_240, "num_hidden_layers": 32, "resid_pdrop": 0.1},
            "rope_parameters": {"partial_rotary_factor": 0.4},
        },
    }

    model_type: Literal["phi"] = "phi"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=51_200, gt=0)
    """Token ids."""
    hidden_size: int = Field(default=2048, gt=0)
    """Width of the residual stream."""
    intermediate_size: int | None = Field(default=8192, gt=0)
    """Width of the MLP; 4 times hidden_size when not given."""
    num_hidden_layers: int = Field(default=24, gt=0)
    """Blocks."""
    num_attention_heads: int = Field(default=32, gt=0)
    """Query heads."""
    num_key_value_heads: int | None = Field(default=None, gt=0)
    """Key-value heads; as many as query heads when not given."""
    max_position_embeddings: int = Field(default=2048, gt=0)
    """Longest context the model is meant for, in tokens."""
    embd_pdrop: Probability = 0.0
    """Dropout after the embeddings."""
    attn_pdrop: Probability = 0.0
    """Dropout of the attention weights."""
    resid_pdrop: Probability = 0.0
    """Dropout of the attention and MLP branches."""
    rope_parameters: RopeParameters = RopeParameters(partial_rotary_factor=0.5)
    """Rotary positions."""
    qk_layernorm: bool = False
    """Whether each head's queries and keys are normalised."""
    tie_word_embeddings: bool = False
    """Whether the output head is the embedding matrix."""

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Older files have the share of a head that is turned on top."""
        return rotary_part(super().translate(values), 0.5)

    def to_hf(self) -> dict[str, Any]:
        """config.json, with the share of a head that is turned in both of its places."""
        values, share = super().to_hf(), self.rope_parameters.partial_rotary_factor
        values["rope_parameters"] = self.rope_parameters.used() | {"partial_rotary_factor": share}
        values["num_key_value_heads"] = self.num_key_value_heads or self.num_attention_heads
        return values | {"partial_rotary_factor": share}
