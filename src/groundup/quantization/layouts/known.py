"""Which layouts there are: by their name in config.json, and by our settings."""

from typing import Any

from groundup.base.errors import CheckpointError, did_you_mean
from groundup.quantization.config import QuantizationConfig
from groundup.quantization.configs.awq import AWQConfig
from groundup.quantization.configs.gptq import GPTQConfig
from groundup.quantization.configs.integers import Int8Config
from groundup.quantization.configs.nf4 import NF4Config
from groundup.quantization.layouts.bitsandbytes import BitsAndBytesLayout, EightBitLayout, FourBitLayout
from groundup.quantization.layouts.chatglm import BITS, KEY, ChatGLMLayout
from groundup.quantization.layouts.grouped import AWQLayout, GPTQLayout
from groundup.quantization.layouts.layout import Layout

OURS = "groundup"
"""`quant_method` of what has no public layout."""

LAYOUTS: dict[str, type[Layout]] = {
    layout.method: layout for layout in (GPTQLayout, AWQLayout, BitsAndBytesLayout, ChatGLMLayout)
}
PUBLIC: dict[type[QuantizationConfig], type[Layout]] = {
    AWQConfig: AWQLayout,
    NF4Config: FourBitLayout,
    GPTQConfig: GPTQLayout,
    Int8Config: EightBitLayout,
}


def take_description(values: dict[str, Any]) -> dict[str, Any]:
    """Take out of a config.json what it tells of quantization: ChatGLM's has a key of its own for it."""
    if "quantization_config" in values:
        return values.pop("quantization_config")
    values.pop("quantization_embeddings", None)  # a quantized embedding is known by its tensors
    return {"quant_method": ChatGLMLayout.method, KEY: values.pop(KEY)}


def layout_of_file(described: dict[str, Any]) -> Layout:
    """The layout that `take_description` found.

    Raises:
        CheckpointError: unknown here.
    """
    method = described.get("quant_method")
    if method not in LAYOUTS:
        known = [*LAYOUTS, OURS]
        raise CheckpointError(
            f"config.json: `quant_method` is {method!r:.80}, which is not read here.{did_you_mean(str(method), known)} "
            f"There are: {', '.join(known)}"
        )
    return LAYOUTS[method].read(described)


def layout_for(config: QuantizationConfig, model_type: str) -> Layout | None:
    """The public layout of our settings for a family by its name in config.json, or None."""
    if model_type == ChatGLMLayout.method and isinstance(config, tuple(BITS.values())):
        return ChatGLMLayout(config)
    return PUBLIC[type(config)](config) if type(config) in PUBLIC else None
