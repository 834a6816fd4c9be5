"""The settings of every quantization method, and their union."""

from typing import TYPE_CHECKING, Any

from groundup.base.config import one_of
from groundup.quantization.config import QuantizationConfig
from groundup.quantization.configs.awq import AWQConfig
from groundup.quantization.configs.four_bit import FourBitConfig
from groundup.quantization.configs.gptq import GPTQConfig
from groundup.quantization.configs.integers import Int8Config
from groundup.quantization.configs.smoothquant import SmoothQuantConfig

if TYPE_CHECKING:
    AnyQuantization = QuantizationConfig
else:
    AnyQuantization: Any = one_of(QuantizationConfig)

__all__ = [
    "AWQConfig",
    "AnyQuantization",
    "FourBitConfig",
    "GPTQConfig",
    "Int8Config",
    "QuantizationConfig",
    "SmoothQuantConfig",
]
