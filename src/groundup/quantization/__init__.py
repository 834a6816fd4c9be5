"""Weights in fewer bits.

from groundup.quantization import Int8Config, quantize

report = quantize(model, Int8Config())        # every linear layer in blocks, in place
print(report)                                 # bits a weight, bytes before and after

configs/        the settings of each method; import no torch
linear.py       a linear layer whose matrix is stored in fewer bits
exchange.py     exchange a model's layers for such ones
calibration.py  what flows into layers, block by block; folding.py: factors that change nothing
layouts/        the files of GPTQ, AWQ and bitsandbytes; loading.py, saving.py, streaming.py
experts.py      the experts of a mixture, likewise
exchange.py     exchange a model's layers for such ones
rounding.py     to integers; packing.py: several of them in a byte
tables.py       to places in a table
one method a file
"""

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "AWQConfig": "configs.awq",
    "AwareConfig": "configs.aware",
    "ChatGLMInt4Config": "configs.integers",
    "ChatGLMInt8Config": "configs.integers",
    "FP4Config": "configs.nf4",
    "GPTQConfig": "configs.gptq",
    "Int4Config": "configs.integers",
    "Int8Config": "configs.integers",
    "IntegerConfig": "configs.integers",
    "LLMInt8Config": "configs.llm_int8",
    "NF4Config": "configs.nf4",
    "QuantizationConfig": "config",
    "QuantizedLinear": "linear",
    "SmoothQuantConfig": "configs.smoothquant",
    "finish": "aware",
    "load_quantized": "streaming",
    "quantize": "exchange",
    "quantize_cache": "kv_cache",
    "quantize_folder": "streaming",
    "token_rows": "calibration",
}

if TYPE_CHECKING:
    from groundup.quantization.aware import finish
    from groundup.quantization.calibration import token_rows
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
    from groundup.quantization.exchange import quantize
    from groundup.quantization.kv_cache import quantize_cache
    from groundup.quantization.linear import QuantizedLinear
    from groundup.quantization.streaming import load_quantized, quantize_folder

__all__ = [
    "AWQConfig",
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
    "QuantizedLinear",
    "SmoothQuantConfig",
    "finish",
    "load_quantized",
    "quantize",
    "quantize_cache",
    "quantize_folder",
    "token_rows",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'groundup.quantization' has no attribute {name!r}")
    return getattr(importlib.import_module(f"groundup.quantization.{_HOMES[name]}"), name)
