"""The shape of the text model in a Qwen3.5."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from groundup.models.configs.llama import RopeParameters
from groundup.models.configs.qwen3_next import Qwen3NextConfig


class MropeParameters(RopeParameters):
    """Rotary positions of a model that also sees images: of text all three positions of a token are one and the same,
    so what is said of them here changes nothing and is kept for the file.
    """

    mrope_section: tuple[int, ...] | None = None
    """Frequencies that turn by time, by height and by width."""
    mrope_interleaved: bool | None = None
    """Whether the three take turns along the frequencies."""

    def used(self) -> dict[str, Any]:
        """The settings that count, and those of images where the file has them."""
        images = self.model_dump(mode="json", include={"mrope_section", "mrope_interleaved"}, exclude_none=True)
        return super().used() | images


LONG: dict[str, Any] = {
    "max_position_embeddings": 262_144,
    "rope_parameters": {
        **{"rope_theta": 10_000_000.0, "partial_rotary_factor": 0.25},
        **{"mrope_section": (11, 11, 10), "mrope_interleaved": True},
    },
}
"""What all published sizes have."""

NO_EXPERTS: dict[str, Any] = {
    **{"num_experts": 0, "num_experts_per_tok": 10, "moe_intermediate_size": 512},
    **{"shared_expert_intermediate_size": 512, "norm_topk_prob": True, "decoder_sparse_step": 1},
    **{"mlp_only_layers": [], "router_aux_loss_coef": 0.001},
}
"""The ancestor's fields, of which a dense model has no use."""


def dense(hidden: int, intermediate: int, layers: int, heads: int, key_values: int, memories: int) -> dict[str, Any]:
    """A published size; the smaller ones tie the head to the embedding."""
    shape = {"hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers}
    heads_of = {"num_attention_heads": heads, "num_key_value_heads": key_values, "linear_num_value_heads": memories}
    return {**LONG, **shape, **heads_of, "tie_word_embeddings": hidden < 4096}


class Qwen3_5Config(Qwen3NextConfig):
    """Qwen3.5 (Qwen team 2026), dense: the text model, which the published files hold beside one for images."""

    architecture: ClassVar[str] = "Qwen3_5ForCausalLM"
    whole: ClassVar[str] = "qwen3_5"
    fixed: ClassVar[dict[str, Any]] = {"mlp_bias": False, "hidden_act": "silu"} | NO_EXPERTS
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "qwen3.5-0.8b": dense(1024, 3584, 24, 8, 2, 16),
        "qwen3.5-2b": dense(2048, 6144, 24, 8, 2, 16),
        "qwen3.5-4b": dense(2560, 9216, 32, 16, 4, 32),
        "qwen3.5-9b": dense(4096, 12_288, 32, 16, 4, 32),
        "qwen3.5-27b": dense(5120, 17_408, 64, 24, 4, 48),
    }

    model_type: Literal["qwen3_5_text"] = "qwen3_5_text"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=248_320, gt=0)
    """Token ids."""
    hidden_size: int = Field(default=4096, gt=0)
    """Width of the residual stream."""
    intermediate_size: int = Field(default=12_288, gt=0)
    """Width of the gated MLP."""
    num_hidden_layers: int = Field(default=32, gt=0)
    """Blocks."""
    num_key_value_heads: int | None = Field(default=4, gt=0)
    """Key-value heads of layers with attention; as many as query heads when not given."""
    rope_parameters: MropeParameters = MropeParameters(partial_rotary_factor=0.25)  # type: ignore[assignment]
    """Rotary positions of layers with attention."""
    num_experts: int = Field(default=0, ge=0)
    """None here: the field is that of the ancestor."""
