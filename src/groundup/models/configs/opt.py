"""The shape of an OPT."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from groundup.models.configs.gpt2 import GPT2Config, Probability


def opt(hidden: int, layers: int, heads: int, **changes: Any) -> dict[str, Any]:
    """A size of Zhang et al. 2022, table 1."""
    shape = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
    return shape | {"intermediate_size": 4 * hidden} | changes


class OPTConfig(GPT2Config):
    """OPT (Zhang et al. 2022)."""

    architecture: ClassVar[str] = "OPTForCausalLM"
    aliases: ClassVar[dict[str, str]] = {
        "activation_function": "hidden_act",
        "ffn_dim": "intermediate_size",
        "dropout": "resid_pdrop",
        "attention_dropout": "attn_pdrop",
        "init_std": "initializer_range",
        "_remove_final_layer_norm": "remove_final_layer_norm",
    }
    harmless: ClassVar[frozenset[str]] = frozenset({"activation_dropout", "layerdrop"})
    fixed: ClassVar[dict[str, Any]] = {"embd_pdrop": 0.0, "mlp_pdrop": None, "layer_norm_epsilon": 1e-5}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "opt-125m": {},
        "opt-350m": opt(1024, 24, 16, do_layer_norm_before=False, word_embed_proj_dim=512),
        "opt-1.3b": opt(2048, 24, 32),
        "opt-2.7b": opt(2560, 32, 32),
        "opt-6.7b": opt(4096, 32, 32),
        "opt-13b": opt(5120, 40, 40),
        "opt-30b": opt(7168, 48, 56),
        "opt-66b": opt(9216, 64, 72),
        "opt-175b": opt(12_288, 96, 96),
    }

    model_type: Literal["opt"] = "opt"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=50_272, gt=0)
    """Token ids, those of GPT-2 in another order and some that no text has."""
    intermediate_size: int | None = Field(default=3072, gt=0)
    """Width of the MLP."""
    max_position_embeddings: int = Field(default=2048, gt=0)
    """Learned positions: the longest context."""
    hidden_act: str = "relu"
    """Activation of the MLP."""
    embd_pdrop: Probability = 0.0
    """Not of this family: nothing is dropped after the embeddings."""
    attn_pdrop: Probability = 0.0
    """Dropout of the attention weights."""
    do_layer_norm_before: bool = True
    """Whether branches begin with a norm; where not, their sums are normalised, and nothing before the head."""
    word_embed_proj_dim: int | None = Field(default=None, gt=0)
    """Width of the token vectors, projected to and from hidden_size; hidden_size when not given."""
    remove_final_layer_norm: bool = False
    """No norm before the head, as in checkpoints trained before it was there."""
    enable_bias: bool = True
    """Biases in attention and MLP."""
    layer_norm_elementwise_affine: bool = True
    """Whether norms learn a gain and a bias."""

    @property
    def has_final_norm(self) -> bool:
        """Whether a norm stands between the last block and the head."""
        return self.do_layer_norm_before and not self.remove_final_layer_norm

    @property
    def narrow(self) -> int | None:
        """Width of the token vectors where it is another than that of the residual stream."""
        return None if self.word_embed_proj_dim in (None, self.hidden_size) else self.word_embed_proj_dim

    def to_hf(self) -> dict[str, Any]:
        """config.json, with the width of the token vectors written out."""
        return super().to_hf() | {"word_embed_proj_dim": self.word_embed_proj_dim or self.hidden_size}
