"""The shape of a first Qwen."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from groundup.base.errors import CheckpointError
from groundup.models.configs.base import ModelConfig
from groundup.models.configs.llama import LlamaConfig, RopeParameters

FIRST_NAMES = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_positions": "max_position_embeddings",
    "ffn_hidden_size": "intermediate_size",
    "attn_pdrop": "attn_dropout_prob",
    "embd_pdrop": "emb_dropout_prob",
}
"""Keys of the files of August 2023 and what later files call them."""

SWITCHES: dict[str, Any] = {
    "no_bias": True,
    "rotary_pct": 1.0,
    "scale_attn_weights": True,
    "apply_residual_connection_post_layernorm": False,
    "activation": "swiglu",
    "pos_emb": "rotary",
    "n_inner": None,
}
"""Choices that the files name and that every released model made alike."""

LONG = {"vocab_size": 152_064, "seq_length": 8192}


class QwenConfig(LlamaConfig):
    """Qwen (Bai et al. 2023)."""

    architecture: ClassVar[str] = "QWenLMHeadModel"
    aliases: ClassVar[dict[str, str]] = {
        "layer_norm_epsilon": "rms_norm_eps",
        "kv_channels": "head_dim",
        "attn_dropout_prob": "attention_dropout",
        "emb_dropout_prob": "embd_pdrop",
    }
    harmless: ClassVar[frozenset[str]] = frozenset(
        {
            *SWITCHES,
            # kernels and precision
            *("bf16", "fp16", "fp32", "params_dtype", "softmax_in_fp32", "use_flash_attn", "onnx_safe"),
            *("use_cache_quantization", "use_cache_kernel", "bias_dropout_fusion"),
            *("tokenizer_type", "tokenizer_class"),
            "resid_pdrop",  # written in the first files, used by no version of the model
        }
    )
    fixed: ClassVar[dict[str, Any]] = {
        **{"num_key_value_heads": None, "hidden_act": "silu", "rope_parameters": RopeParameters()},
        **{"attention_bias": False, "mlp_bias": False},
    }
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "qwen-1.8b": {
            **{"hidden_size": 2048, "intermediate_size": 11_008, "num_hidden_layers": 24, "num_attention_heads": 16},
        },
        "qwen-7b": {},
        "qwen-14b": {
            **{"hidden_size": 5120, "intermediate_size": 27_392, "num_hidden_layers": 40, "num_attention_heads": 40},
            **LONG,
        },
        "qwen-72b": {
            **{"hidden_size": 8192, "intermediate_size": 49_152, "num_hidden_layers": 80, "num_attention_heads": 64},
            **{"vocab_size": 152_064, "seq_length": 32_768, "max_position_embeddings": 32_768},
            **{"rotary_emb_base": 1_000_000.0, "use_dynamic_ntk": False, "use_logn_attn": False},
        },
    }

    model_type: Literal["qwen"] = "qwen"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=151_936, gt=0)
    """Token ids."""
    intermediate_size: int = Field(default=22_016, gt=0, multiple_of=2)
    """Widths of the MLP's gate and up projection together."""
    max_position_embeddings: int = Field(default=8192, gt=0)
    """Longest context the model is meant for, in tokens."""
    head_dim: int | None = Field(default=128, gt=0)
    """Width of a head: hidden_size / num_attention_heads."""
    rotary_emb_base: float = Field(default=10_000.0, gt=0)
    """Base of the rotary wavelengths."""
    seq_length: int = Field(default=8192, gt=1)
    """The context of training."""
    use_dynamic_ntk: bool = True
    """Whether texts beyond it stretch the rotary wavelengths."""
    use_logn_attn: bool = True
    """Whether queries beyond it are sharpened by the logarithm of their place."""
    embd_pdrop: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout of the token vectors."""

    @model_validator(mode="after")
    def _heads_fill_the_width(self) -> "QwenConfig":
        if self.num_attention_heads * (self.head_dim or 0) != self.hidden_size:
            raise ValueError(
                f"kv_channels ({self.head_dim}) times num_attention_heads ({self.num_attention_heads}) must be "
                f"hidden_size ({self.hidden_size})"
            )
        return self

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Read the names of the first files; refuse what no release does."""
        values = {FIRST_NAMES.get(name, name): value for name, value in values.items() if name != "rope_parameters"}
        padded = values.pop("padded_vocab_size", None)
        if padded is not None:
            values["vocab_size"] = padded
        for name, needed in SWITCHES.items():
            if values.get(name, needed) != needed:
                raise CheckpointError(f"config.json: {name} of a qwen model can only be {needed}")
        return {"use_dynamic_ntk": False, "use_logn_attn": False} | values

    def to_hf(self) -> dict[str, Any]:
        """config.json in the words of the later files."""
        switches = {name: SWITCHES[name] for name in ("no_bias", "rotary_pct", "scale_attn_weights")}
        return switches | ModelConfig.to_hf(self)
