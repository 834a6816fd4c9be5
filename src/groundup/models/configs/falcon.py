"""The shape of a Falcon."""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from groundup.base.errors import CheckpointError
from groundup.models.configs.gpt2 import GPT2Config, Probability
from groundup.models.configs.llama import RopeParameters


class FalconConfig(GPT2Config):
    """Falcon (Almazrouei et al. 2023): RW 1B, 7B, 40B, 180B, and Falcon 2 11B (Malartic et al. 2024)."""

    architecture: ClassVar[str] = "FalconForCausalLM"
    aliases: ClassVar[dict[str, str]] = {
        "ffn_hidden_size": "intermediate_size",
        "activation": "hidden_act",
        "hidden_dropout": "resid_pdrop",
        "attention_dropout": "attn_pdrop",
    }
    fixed: ClassVar[dict[str, Any]] = {"embd_pdrop": 0.0, "mlp_pdrop": None}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "falcon-rw-1b": {
            **{"vocab_size": 50_304, "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32},
            **{"alibi": True, "bias": True, "multi_query": False, "parallel_attn": False},
        },
        "falcon-7b": {},
        "falcon-40b": {
            **{"hidden_size": 8192, "num_hidden_layers": 60, "num_attention_heads": 128, "num_kv_heads": 8},
            "new_decoder_architecture": True,
        },
        "falcon-180b": {
            **{"hidden_size": 14_848, "num_hidden_layers": 80, "num_attention_heads": 232, "num_kv_heads": 8},
            "new_decoder_architecture": True,
        },
        "falcon-2-11b": {
            **{"hidden_size": 4096, "num_hidden_layers": 60, "num_attention_heads": 32, "num_kv_heads": 8},
            **{"new_decoder_architecture": True, "num_ln_in_parallel_attn": 1, "max_position_embeddings": 8192},
            **{"rope_parameters": {"rope_theta": 500_042.0}, "tie_word_embeddings": False},
        },
    }

    model_type: Literal["falcon"] = "falcon"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=65_024, gt=0)
    """Token ids."""
    hidden_size: int = Field(default=4544, gt=0)
    """Width of the residual stream."""
    num_hidden_layers: int = Field(default=32, gt=0)
    """Blocks."""
    num_attention_heads: int = Field(default=71, gt=0)
    """Query heads."""
    num_kv_heads: int | None = Field(default=None, gt=0)
    """Key-value heads of the new architecture; as many as query heads when not given. Without it: see `multi_query`."""
    max_position_embeddings: int = Field(default=2048, gt=0)
    """Longest context the model is meant for, in tokens."""
    hidden_act: str = "gelu"
    """Activation of the MLP."""
    embd_pdrop: Probability = 0.0
    """Not of this family: nothing is dropped after the embeddings."""
    attn_pdrop: Probability = 0.0
    """Dropout of the attention weights."""
    resid_pdrop: Probability = 0.0
    """Dropout of the attention and MLP branches."""
    alibi: bool = False
    """Linear biases in place of rotary positions (RW)."""
    bias: bool = False
    """Biases in attention and MLP."""
    multi_query: bool = True
    """One key-value head for all query heads; one each where not. The new architecture has `num_kv_heads`."""
    parallel_attn: bool = True
    """Attention and MLP read the same stream; one after the other where not."""
    new_decoder_architecture: bool = False
    """Grouped key-value heads, and two norms in a block (40B and later)."""
    num_ln_in_parallel_attn: int | None = Field(default=None, ge=1, le=2)
    """Norms in a block of the new architecture: 2 when not given; Falcon 2 has 1."""
    rope_parameters: RopeParameters = RopeParameters()
    """Rotary positions."""

    @model_validator(mode="after")
    def _blocks_are_known(self) -> "FalconConfig":
        if self.num_attention_heads % self.kv_heads:
            raise ValueError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of num_kv_heads ({self.kv_heads})"
            )
        if self.new_decoder_architecture and not self.parallel_attn:
            raise ValueError("new_decoder_architecture has parallel_attn")
        if not self.new_decoder_architecture and self.num_ln_in_parallel_attn == 2:
            raise ValueError("num_ln_in_parallel_attn is 2 in the new_decoder_architecture alone")
        if not self.new_decoder_architecture and self.num_kv_heads not in (None, self.num_attention_heads):
            raise ValueError("num_kv_heads counts in the new_decoder_architecture alone; see multi_query")
        return self

    @property
    def kv_heads(self) -> int:
        """Key-value heads."""
        if self.new_decoder_architecture:
            return self.num_kv_heads or self.num_attention_heads
        return 1 if self.multi_query else self.num_attention_heads

    @property
    def norms_in_block(self) -> int:
        """How many norms a block has."""
        if not self.parallel_attn:
            return 2
        return (self.num_ln_in_parallel_attn or 2) if self.new_decoder_architecture else 1

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Refuse a variant that no Falcon has; older files call the width `n_embed`."""
        values = dict(super().translate(values))
        if values.pop("apply_residual_connection_post_layernorm", False):
            raise CheckpointError("config.json: apply_residual_connection_post_layernorm is not supported for falcon")
        if "n_embed" in values:
            values["hidden_size"] = values.pop("n_embed")
        return values

    def to_hf(self) -> dict[str, Any]:
        """config.json, with what follows from other fields written out."""
        rest = {
            "ffn_hidden_size": self.intermediate_size or 4 * self.hidden_size,
            "num_kv_heads": self.num_kv_heads or self.num_attention_heads,
            "rope_parameters": self.rope_parameters.used(),
        }
        return super().to_hf() | rest
