"""The shape of a BLOOM."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from groundup.base.errors import CheckpointError
from groundup.models.configs.gpt2 import GPT2Config, Probability


class BloomConfig(GPT2Config):
    """BLOOM (Le Scao et al. 2022)."""

    architecture: ClassVar[str] = "BloomForCausalLM"
    aliases: ClassVar[dict[str, str]] = {
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "seq_length": "max_position_embeddings",
        "hidden_dropout": "resid_pdrop",
        "attention_dropout": "attn_pdrop",
    }
    harmless: ClassVar[frozenset[str]] = frozenset(
        {
            *("masked_softmax_fusion", "bias_dropout_fusion", "attention_softmax_in_fp32", "offset_alibi"),
            *("skip_bias_add", "skip_bias_add_qkv", "slow_but_exact", "pretraining_tp"),
        }
    )
    fixed: ClassVar[dict[str, Any]] = {
        "intermediate_size": None,
        "hidden_act": "gelu_new",
        "embd_pdrop": 0.0,
        "mlp_pdrop": None,
    }
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "bloom-560m": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
        "bloom-1b1": {"hidden_size": 1536, "num_hidden_layers": 24, "num_attention_heads": 16},
        "bloom-1b7": {"hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16},
        "bloom-3b": {"hidden_size": 2560, "num_hidden_layers": 30, "num_attention_heads": 32},
        "bloom-7b1": {"hidden_size": 4096, "num_hidden_layers": 30, "num_attention_heads": 32},
        "bloom": {"hidden_size": 14_336, "num_hidden_layers": 70, "num_attention_heads": 112},
    }

    model_type: Literal["bloom"] = "bloom"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=250_880, gt=0)
    """Token ids."""
    hidden_size: int = Field(default=64, gt=0)
    """Width of the residual stream."""
    num_hidden_layers: int = Field(default=2, gt=0)
    """Blocks."""
    num_attention_heads: int = Field(default=8, gt=0)
    """Heads."""
    max_position_embeddings: int = Field(default=2048, gt=0)
    """Context in training, in tokens; biases have no longest one."""
    embd_pdrop: Probability = 0.0
    """Not of this family: nothing is dropped after the embeddings."""
    attn_pdrop: Probability = 0.0
    """Dropout of the attention weights."""
    resid_pdrop: Probability = 0.0
    """Dropout of the attention and MLP branches."""

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Older files call the width `n_embed` and spell some names as other families do."""
        values = dict(super().translate(values))
        if values.pop("apply_residual_connection_post_layernorm", False):
            raise CheckpointError("config.json: apply_residual_connection_post_layernorm is not supported for bloom")
        if values.get("n_inner") is None:
            values.pop("n_inner", None)
        for old, name in (("n_embed", "hidden_size"), ("num_attention_heads", "n_head"), ("num_layers", "n_layer")):
            if old in values:
                values[name] = values.pop(old)
        return values
