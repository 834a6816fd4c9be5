"""The shape of a ChatGLM2, ChatGLM3 or GLM-4 in the layout of their release."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from groundup.base.errors import CheckpointError
from groundup.models.configs.base import ModelConfig
from groundup.models.configs.glm import GlmConfig
from groundup.models.configs.llama import RopeParameters

NINE = {
    **{"vocab_size": 151_552, "num_hidden_layers": 40, "max_position_embeddings": 131_072},
    **{"rms_norm_eps": 1.5625e-07, "rope_ratio": 500.0},
}
SWITCHES: dict[str, Any] = {
    "multi_query_attention": True,
    "rmsnorm": True,
    "post_layer_norm": True,
    "apply_residual_connection_post_layernorm": False,
}
"""Choices that the authors' code offers and that every released model made alike."""
ABSENT = ("quantization_bit", "pre_seq_len")
"""Other weights than those of the model: quantized ones, a tuned prefix."""


class ChatGLMConfig(GlmConfig):
    """ChatGLM2-6B, ChatGLM3-6B (Zeng et al. 2023) and GLM-4-9B (Team GLM 2024)."""

    architecture: ClassVar[str] = "ChatGLMModel"
    aliases: ClassVar[dict[str, str]] = {
        "num_layers": "num_hidden_layers",
        "padded_vocab_size": "vocab_size",
        "ffn_hidden_size": "intermediate_size",
        "kv_channels": "head_dim",
        "multi_query_group_num": "num_key_value_heads",
        "layernorm_epsilon": "rms_norm_eps",
        "seq_length": "max_position_embeddings",
        "add_qkv_bias": "attention_bias",
        "add_bias_linear": "mlp_bias",
        "hidden_dropout": "resid_pdrop",
    }
    harmless: ClassVar[frozenset[str]] = frozenset(
        {
            *(*SWITCHES, *ABSENT, "prefix_projection", "original_rope", "classifier_dropout"),
            # how half precision is kept from overflowing; the result is the same
            *("apply_query_key_layer_scaling", "attention_softmax_in_fp32", "fp32_residual_connection"),
            "bias_dropout_fusion",
        }
    )
    fixed: ClassVar[dict[str, Any]] = {
        "hidden_act": "silu",
        "rope_parameters": RopeParameters(partial_rotary_factor=0.5),
    }
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "chatglm2-6b": {"max_position_embeddings": 32_768},
        "chatglm3-6b": {},
        "chatglm3-6b-32k": {"max_position_embeddings": 32_768, "rope_ratio": 50.0},
        "chatglm3-6b-128k": {"max_position_embeddings": 131_072, "rope_ratio": 500.0},
        "glm-4-9b": {**NINE, "max_position_embeddings": 8192, "rope_ratio": 1.0},
        "glm-4-9b-chat": NINE,
        "glm-4-9b-chat-1m": {
            **{**NINE, "num_key_value_heads": 4, "max_position_embeddings": 1_048_576, "rope_ratio": 10_000.0},
        },
    }

    model_type: Literal["chatglm"] = "chatglm"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=65_024, gt=0)
    """Token ids."""
    num_hidden_layers: int = Field(default=28, gt=0)
    """Blocks."""
    num_key_value_heads: int = Field(default=2, gt=0)  # type: ignore[assignment]
    """Key-value heads: `groups` in the authors' words."""
    head_dim: int = Field(default=128, gt=0)  # type: ignore[assignment]
    """Width of a head."""
    max_position_embeddings: int = Field(default=8192, gt=0)
    """Longest context the model is meant for, in tokens."""
    rms_norm_eps: float = 1e-5
    """Added to the mean square in RMSNorm."""
    rope_ratio: float = Field(default=1.0, gt=0)
    """Factor of theta, 10,000, for longer contexts."""
    resid_pdrop: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout of the attention and MLP branches."""

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Refuse what the authors' code can do besides and no release of it does."""
        values = {name: value for name, value in values.items() if name != "rope_parameters"}
        padded = values.get("padded_vocab_size")
        if padded is not None and values.pop("vocab_size", padded) != padded:
            raise CheckpointError("config.json: vocab_size and padded_vocab_size of a chatglm model must be equal")
        for name, needed in SWITCHES.items():
            if values.get(name, needed) != needed:
                raise CheckpointError(f"config.json: {name} of a chatglm model can only be {needed}")
        for name in ABSENT:
            if values.get(name):
                raise CheckpointError(f"config.json: {name} {values[name]} is not supported for chatglm")
        if values.get("rope_ratio", 1) != 1 and "chatglm2" in str(values.get("_name_or_path")):
            raise CheckpointError(
                "config.json: ChatGLM2-6B-32K divides positions by its rope_ratio, where all others multiply theta by "
                "it; the long ChatGLM3 does better and is supported"
            )
        return {"multi_query_group_num": 1, "add_qkv_bias": False, "seq_length": 2048} | values

    def to_hf(self) -> dict[str, Any]:
        """config.json in the authors' words, with the choices that their code does not make by itself."""
        return SWITCHES | ModelConfig.to_hf(self)
