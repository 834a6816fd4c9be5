"""Which layouts there are: by their name in config.json, and by our settings."""

from typing import Any

from groundup.base.errors import CheckpointError, did_you_mean
from groundup.quantization.config import QuantizationConfig
from groundup.quantization.configs.awq import AWQConfig
from groundup.quantization.configs.gptq import GPTQConfig
from groundup.quantization.configs.integers import Int8Config
from groundup.quantization.configs.nf4 import NF4Config
from groundup.quantization.layouts.bitsandbytes import BitsAndBytesLayout, EightBitLayout, FourBitLayout
from groundup.quantization.layouts.grouped import AWQLayout, GPTQLayout
from groundup.quantization.layouts.layout import Layout

OURS = "groundup"
"""`quant_method` of what has no public layout."""

LAYOUTS: dict[str, type[Layout]] = {layout.method: layout for layout in (GPTQLayout, AWQLayout, BitsAndBytesLayout)}
PUBLIC: dict[type[QuantizationConfig], type[Layout]] = {
    AWQConfig: AWQLayout,
    NF4Config: FourBitLayout,
    GPTQConfig: GPTQLayout,
    Int8Config: EightBitLayout,
}


def layout_of_file(described: dict[str, Any]) -> Layout:
    """The layout that a `quantization_config` tells.

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


def layout_for(config: QuantizationConfig) -> Layout | None:
    """The public layout of our settings, or None."""
    return PUBLIC[type(config)](config) if type(config) in PUBLIC else None
