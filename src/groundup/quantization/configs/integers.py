"""Settings of rounding to integers. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import PositiveInt

from groundup.base.config import FromText
from groundup.quantization.config import QuantizationConfig

if TYPE_CHECKING:
    from groundup.quantization.linear import QuantizedLinear


class Int8Config(QuantizationConfig):
    """Weights as 8-bit integers, one scale for each row: w = scale q, scale = max |w| / 127."""

    kind: Literal["int8"] = "int8"

    def make(self, layer: Any) -> QuantizedLinear:
        from groundup.quantization.integers import Int8Linear

        return Int8Linear.of(layer)

    def empty(self, in_features: int, out_features: int, bias: bool) -> QuantizedLinear:
        from groundup.quantization.integers import Int8Linear

        return Int8Linear(in_features, out_features, bias)


class Int4Config(QuantizationConfig):
    """Weights as 4-bit integers, one scale for 32 of them: w = scale q, scale = max |w| / 7."""

    kind: Literal["int4"] = "int4"

    def make(self, layer: Any) -> QuantizedLinear:
        from groundup.quantization.integers import IntegerLinear

        return IntegerLinear.of(layer)

    def empty(self, in_features: int, out_features: int, bias: bool) -> QuantizedLinear:
        from groundup.quantization.integers import IntegerLinear

        return IntegerLinear(in_features, out_features, bias)


class IntegerConfig(QuantizationConfig):
    """Weights as integers of so many bits: by their largest number (absmax), or with a zero point."""

    kind: Literal["int"] = "int"
    bits: Annotated[Literal[8, 4, 3, 2], FromText] = 4
    """Bits of a number."""
    group: PositiveInt | Literal["row", "tensor"] = 32
    """What shares a scale: so many numbers along the inputs, a `row`, or the whole `tensor`."""
    symmetric: bool = True
    """w = scale q; otherwise w = scale (q - zero), which fits numbers that are not centred."""

    @property
    def settings(self) -> dict[str, Any]:
        """What the layer takes."""
        return {"bits": self.bits, "group": self.group, "symmetric": self.symmetric}

    def make(self, layer: Any) -> QuantizedLinear:
        from groundup.quantization.integers import IntegerLinear

        return IntegerLinear.of(layer, **self.settings)

    def empty(self, in_features: int, out_features: int, bias: bool) -> QuantizedLinear:
        from groundup.quantization.integers import IntegerLinear

        return IntegerLinear(in_features, out_features, bias, **self.settings)


class ChatGLMInt8Config(QuantizationConfig):
    """Weights as the ChatGLM releases store them in 8 bits: a float16 scale for each row."""

    kind: Literal["chatglm_int8"] = "chatglm_int8"

    def make(self, layer: Any) -> QuantizedLinear:
        from groundup.quantization.integers import ChatGLMLinear

        return ChatGLMLinear.of(layer)

    def empty(self, in_features: int, out_features: int, bias: bool) -> QuantizedLinear:
        from groundup.quantization.integers import ChatGLMLinear

        return ChatGLMLinear(in_features, out_features, bias)


class ChatGLMInt4Config(QuantizationConfig):
    """Weights as the ChatGLM releases store them in 4 bits: a float16 scale for each row, two numbers a byte."""

    kind: Literal["chatglm_int4"] = "chatglm_int4"

    def make(self, layer: Any) -> QuantizedLinear:
        from groundup.quantization.integers import ChatGLMLinear

        return ChatGLMLinear.of(layer, bits=4)

    def empty(self, in_features: int, out_features: int, bias: bool) -> QuantizedLinear:
        from groundup.quantization.integers import ChatGLMLinear

        return ChatGLMLinear(in_features, out_features, bias, bits=4)
