"""The files of the quantized ChatGLM releases (`chatglm-6b-int4`, `chatglm2-6b-int4`, ...).

    weight          (out, in) int8; in four bits (out, in / 2), two neighbours a byte, the first in the high half
    weight_scale    (out,) float16

config.json has no `quantization_config`, but `"quantization_bit": 8` or 4. Biases, norms, embeddings and the head stay.
Source: `quantization.py` of THUDM's ChatGLM-6B (2023).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from groundup.base.errors import CheckpointError
from groundup.base.safetensors_header import TensorMeta
from groundup.quantization.configs.integers import ChatGLMInt4Config, ChatGLMInt8Config
from groundup.quantization.integers import ChatGLMLinear
from groundup.quantization.layouts.layout import FLOATS, Form, Layout, Rows, Wanted

BITS = {8: ChatGLMInt8Config, 4: ChatGLMInt4Config}
KEY = "quantization_bit"


class ChatGLMLayout(Layout):
    """8 or 4 bits and a scale for each row. `method` is their `model_type`: there is no `quant_method`."""

    method = "chatglm"
    mark = "weight_scale"
    parts = ("weight", "weight_scale")

    @property
    def bits(self) -> int:
        """Of a number."""
        return next(bits for bits, config in BITS.items() if isinstance(self.config, config))

    @classmethod
    def read(cls, described: dict[str, Any]) -> "ChatGLMLayout":
        bits = described.get(KEY)
        if bits not in BITS:
            raise CheckpointError(f"config.json: {KEY} is {bits!r:.40}: ChatGLM's layers have 8 bits or 4")
        return cls(BITS[bits]())

    def describe(self, unchanged: list[str]) -> dict[str, Any]:
        return {KEY: self.bits}

    def in_config(self, unchanged: list[str]) -> dict[str, Any]:
        return self.describe(unchanged)

    def form(self, metas: Mapping[str, TensorMeta], get: Callable[[str], Tensor]) -> Form:
        if "weight" not in metas or len(metas["weight"].shape) != 2:
            raise CheckpointError("lacks its matrix `weight`: the file is not whole")
        out, packed = metas["weight"].shape
        wanted = {"weight": Wanted((out, packed), (torch.int8,)), "weight_scale": Wanted((out,), FLOATS)}
        return Form(packed * 8 // self.bits, out, wanted)

    def layer(self, stored: dict[str, Tensor]) -> ChatGLMLinear:
        out, packed = stored["weight"].shape
        with torch.device("meta"):
            new = ChatGLMLinear(packed * 8 // self.bits, out, bits=self.bits)
        new.q, new.scale = stored["weight"], stored["weight_scale"].half()
        return new

    def stored(self, layer: Any) -> dict[str, Tensor]:
        return {"weight": layer.q, "weight_scale": layer.scale}

    def rows(self, layer: Any) -> Rows:
        return Rows(self.stored(layer), {})

    def from_rows(self, rows: Rows) -> ChatGLMLinear:
        return self.layer(rows.each)
