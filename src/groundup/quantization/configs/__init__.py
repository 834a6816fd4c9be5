"""The settings of every quantization method, and their union."""

from typing import TYPE_CHECKING, Any

from groundup.base.config import one_of
from groundup.quantization.config import QuantizationConfig
from groundup.quantization.configs.aware import AwareConfig
from groundup.quantization.configs.awq import AWQConfig
from groundup.quantization.configs.gptq import GPTQConfig
from groundup.quantization.configs.integers import (
    ChatGLMInt4Config,
    ChatGLMInt8Config,
    Int4Config,
    Int8Config,
    IntegerConfig,
)
from groundup.quantization.configs.llm_int8 import LLMInt8Config
from groundup.quantization.configs.nf4 import FP4Config, NF4Config
from groundup.quantization.configs.smoothquant import SmoothQuantConfig

if TYPE_CHECKING:
    AnyQuantization = QuantizationConfig
else:
    AnyQuantization: Any = one_of(QuantizationConfig)

__all__ = [
    "AWQConfig",
    "AnyQuantization",
    "AwareConfig",
    "ChatGLMInt4Config",
    "ChatGLMInt8Config",
    "FP4Config",
    "GPTQConfig",
    "Int4Config",
    "Int8Config",
    "IntegerConfig",
    "LLMInt8Config",
    "NF4Config",
    "QuantizationConfig",
    "SmoothQuantConfig",
]
