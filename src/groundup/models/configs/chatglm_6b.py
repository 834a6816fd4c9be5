"""The shape of the first ChatGLM-6B."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from groundup.base.errors import CheckpointError
from groundup.models.configs.glm_130b import GLM130BConfig

ABSENT = ("quantization_bit", "pre_seq_len")
"""Other weights than those of the model: quantized ones, a tuned prefix."""


class ChatGLM6BConfig(GLM130BConfig):
    """ChatGLM-6B (Zeng et al. 2023). Its config.json says `chatglm`, as its successors' do, and has other keys."""

    architecture: ClassVar[str] = "ChatGLMModel"
    harmless: ClassVar[frozenset[str]] = frozenset({*ABSENT, "prefix_projection"})
    sizes: ClassVar[dict[str, dict[str, Any]]] = {"chatglm-6b": {}}

    model_type: Literal["chatglm_6b"] = "chatglm_6b"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=130_528, gt=0)
    """Token ids."""
    hidden_size: int = Field(default=4096, gt=0)
    """Width of the residual stream."""
    intermediate_size: int = Field(default=16_384, gt=0)
    """Width of the MLP."""
    num_hidden_layers: int = Field(default=28, gt=0)
    """Blocks."""
    num_attention_heads: int = Field(default=32, gt=0)
    """Heads."""
    position_encoding_2d: bool = True
    """Whether half of each head is turned by the place in the text and half by that in the blank."""
    bos_token_id: int = Field(default=130_004, ge=0)
    """<sop>, which ends a prompt and begins the answer."""
    mask_token_id: int = Field(default=130_000, ge=0)
    """[MASK], a short blank in the text."""
    gmask_token_id: int = Field(default=130_001, ge=0)
    """[gMASK], a blank of any length at the end."""
    eop_token_id: int = Field(default=130_005, ge=0)
    """<eop>, which ends the answer; `eos_token_id` in files."""

    @classmethod
    def reads(cls, values: dict[str, Any]) -> bool:
        """Whether a config.json that says `chatglm` is of the first ChatGLM."""
        return values.get("model_type") == "chatglm" and "inner_hidden_size" in values

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Ids that the first files leave out are those of their vocabulary of 150,528 tokens."""
        for name in ABSENT:
            if values.get(name):
                raise CheckpointError(f"config.json: {name} {values[name]} is not supported for ChatGLM-6B")
        first = {"bos_token_id": 150_004, "mask_token_id": 150_000, "gmask_token_id": 150_001}
        first |= {"eos_token_id": 150_005, "vocab_size": 150_528}
        return first | values | {"model_type": cls.family()}

    def to_hf(self) -> dict[str, Any]:
        """config.json under the name that it shares with its successors."""
        return super().to_hf() | {"model_type": "chatglm"}
