"""The shape of an Olmo 3."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from groundup.models.configs.layer_kinds import LayerKinds, one_rope, rope_of_each_kind
from groundup.models.configs.llama import RopeParameters
from groundup.models.configs.olmo2 import Olmo2Config

YARN = {
    **{"rope_type": "yarn", "rope_theta": 500_000.0, "factor": 8.0, "original_max_position_embeddings": 8192},
    "attention_factor": 1.2079441541679836,
}
COMMON = {
    **{"vocab_size": 100_278, "max_position_embeddings": 65_536, "rms_norm_eps": 1e-6},
    "rope_parameters": YARN,
}


class Olmo3Config(Olmo2Config, LayerKinds):
    """Olmo 3 (Olmo team 2025)."""

    architecture: ClassVar[str] = "Olmo3ForCausalLM"
    period: ClassVar[int] = 4
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "olmo3-7b": COMMON,
        "olmo3-32b": {
            **COMMON,
            **{"hidden_size": 5120, "intermediate_size": 27_648, "num_hidden_layers": 64, "num_attention_heads": 40},
            "num_key_value_heads": 8,
        },
    }

    model_type: Literal["olmo3"] = "olmo3"  # type: ignore[assignment]
    """The family."""
    rope_parameters: RopeParameters = RopeParameters(rope_theta=500_000.0)
    """Rotary positions of layers that see all."""
    rope_local_base_freq: float = Field(default=500_000.0, gt=0)
    """Base of the wavelengths in layers with a window, which are not stretched."""

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Rotary settings come for each kind of layer, or as one theta for both beside a scaling for layers that see
        all.
        """
        values = one_rope(super().translate(values), "rope_local_base_freq", 500_000.0)
        rope = {"rope_theta": 500_000.0} | dict(values.get("rope_parameters") or {})
        return {"rope_local_base_freq": rope["rope_theta"]} | values | {"rope_parameters": rope}

    def to_hf(self) -> dict[str, Any]:
        """config.json, with rotary settings for each kind of layer."""
        return rope_of_each_kind(super().to_hf(), "rope_local_base_freq")
