"""Weights in fewer bits.

from groundup.quantization import Int8Config, quantize

report = quantize(model, Int8Config())        # every linear layer in blocks, in place
print(report)                                 # bits a weight, bytes before and after

configs/        the settings of each method; import no torch
linear.py       a linear layer whose matrix is stored in fewer bits
experts.py      the experts of a mixture, likewise
exchange.py     exchange a model's layers for such ones
rounding.py     to integers; packing.py: several of them in a byte
tables.py       to places in a table
one method a file
"""

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "quantize": "exchange",
    "QuantizedLinear": "linear",
    "QuantizationConfig": "config",
    "AwareConfig": "configs.aware",
    "LLMInt8Config": "configs.llm_int8",
    "finish": "aware",
    "quantize_cache": "kv_cache",
    "ChatGLMInt4Config": "configs.integers",
    "ChatGLMInt8Config": "configs.integers",
    "FP4Config": "configs.nf4",
    "Int4Config": "configs.integers",
    "Int8Config": "configs.integers",
    "IntegerConfig": "configs.integers",
    "NF4Config": "configs.nf4",
}

if TYPE_CHECKING:
    from groundup.quantization.aware import finish
    from groundup.quantization.config import QuantizationConfig
    from groundup.quantization.configs.aware import AwareConfig
    from groundup.quantization.configs.integers import (
        ChatGLMInt4Config,
        ChatGLMInt8Config,
        Int4Config,
        Int8Config,
        IntegerConfig,
    )
    from groundup.quantization.configs.llm_int8 import LLMInt8Config
    from groundup.quantization.configs.nf4 import FP4Config, NF4Config
    from groundup.quantization.exchange import quantize
    from groundup.quantization.kv_cache import quantize_cache
    from groundup.quantization.linear import QuantizedLinear

__all__ = [
    "AwareConfig",
    "ChatGLMInt4Config",
    "ChatGLMInt8Config",
    "FP4Config",
    "Int4Config",
    "Int8Config",
    "IntegerConfig",
    "LLMInt8Config",
    "NF4Config",
    "QuantizationConfig",
    "QuantizedLinear",
    "finish",
    "quantize",
    "quantize_cache",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'groundup.quantization' has no attribute {name!r}")
    return getattr(importlib.import_module(f"groundup.quantization.{_HOMES[name]}"), name)
