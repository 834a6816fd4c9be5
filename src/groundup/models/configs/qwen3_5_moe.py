"""The shape of the text model in a Qwen3.5-MoE."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from groundup.models.configs.qwen3_5 import LONG, MropeParameters
from groundup.models.configs.qwen3_next import Qwen3NextConfig


def sparse(hidden: int, layers: int, heads: int, memories: int, experts: int, each: int, width: int) -> dict[str, Any]:
    """A published size; the shared expert is as wide as the others."""
    shape = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
    widths = {"moe_intermediate_size": width, "shared_expert_intermediate_size": width}
    mixture = {"num_experts": experts, "num_experts_per_tok": each, "linear_num_value_heads": memories}
    return {**LONG, **shape, **widths, **mixture}


class Qwen3_5MoeConfig(Qwen3NextConfig):
    """Qwen3.5 (Qwen team 2026) with experts: the text model, which the published files hold beside one for images."""

    architecture: ClassVar[str] = "Qwen3_5MoeForCausalLM"
    whole: ClassVar[str] = "qwen3_5_moe"
    fixed: ClassVar[dict[str, Any]] = {
        **{"mlp_bias": False, "hidden_act": "silu", "norm_topk_prob": True, "decoder_sparse_step": 1},
        **{"mlp_only_layers": [], "intermediate_size": 5632},
    }
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "qwen3.5-35b-a3b": sparse(2048, 40, 16, 32, 256, 8, 512),
        "qwen3.5-122b-a10b": sparse(3072, 48, 32, 64, 256, 8, 1024),
        "qwen3.5-397b-a17b": sparse(4096, 60, 32, 64, 512, 10, 1024),
    }

    model_type: Literal["qwen3_5_moe_text"] = "qwen3_5_moe_text"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=248_320, gt=0)
    """Token ids."""
    num_hidden_layers: int = Field(default=40, gt=0)
    """Blocks."""
    rope_parameters: MropeParameters = MropeParameters(partial_rotary_factor=0.25)  # type: ignore[assignment]
    """Rotary positions of layers with attention."""
    num_experts: int = Field(default=256, gt=0)
    """Experts in a layer."""
    num_experts_per_tok: int = Field(default=8, gt=0)
    """Experts that a token goes to."""

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A width of MLPs without experts, where a file tells one, is that of no layer."""
        return {name: value for name, value in super().translate(values).items() if name != "intermediate_size"}
