"""The files of bitsandbytes: 4 bits with a table, and 8 bits with a scale a row."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from groundup.base.errors import CheckpointError, UsageError
from groundup.base.safetensors_header import TensorMeta
from groundup.quantization.configs.integers import Int8Config
from groundup.quantization.configs.nf4 import NF4Config
from groundup.quantization.integers import Int8Linear
from groundup.quantization.layouts.layout import FLOATS, Form, Layout, Rows, Wanted
from groundup.quantization.nf4 import NF4Linear

STATE = "weight.quant_state.bitsandbytes__"
TABLES = ("nf4", "fp4")
MAX_STATE_BYTES = 10_000


class BitsAndBytesLayout(Layout):
    """What both share in config.json; `read` tells them apart."""

    method = "bitsandbytes"

    @classmethod
    def read(cls, described: dict[str, Any]) -> Layout:
        four, eight = (bool(described.get(name)) for name in ("load_in_4bit", "load_in_8bit"))
        if four == eight:
            raise CheckpointError("config.json: one of `load_in_4bit` and `load_in_8bit` must be true")
        if eight:
            return EightBitLayout(Int8Config())
        return FourBitLayout(NF4Config(double=bool(described.get("bnb_4bit_use_double_quant"))))


class FourBitLayout(BitsAndBytesLayout):
    """4 bits: the packed numbers are `weight`; what its blocks are like stands in a tensor that holds JSON."""

    mark = "weight.absmax"
    parts = (
        *("weight", "weight.absmax", "weight.quant_map", "weight.nested_absmax", "weight.nested_quant_map"),
        *(STATE + table for table in TABLES),
    )

    def describe(self, unchanged: list[str]) -> dict[str, Any]:
        return {
            **{"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False},
            **{"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": self.config.double},
            **{"bnb_4bit_compute_dtype": "float32", "bnb_4bit_quant_storage": "uint8"},
            "llm_int8_skip_modules": unchanged,
        }

    def form(self, metas: Mapping[str, TensorMeta], get: Callable[[str], Tensor]) -> Form:
        present = [part for part in metas if part.startswith(STATE)]
        if len(present) != 1:
            raise CheckpointError(f"lacks {STATE}nf4: the file is not whole")
        if len(metas[present[0]].shape) != 1 or metas[present[0]].nbytes > MAX_STATE_BYTES:
            raise CheckpointError(f"{present[0]} is too large for a description")
        state = read_state(get(present[0]))
        out, inner = state["shape"]
        layer = self._empty(inner, out, state)
        wanted = {
            "weight": Wanted(tuple(layer.packed.shape), (torch.uint8,)),
            "weight.absmax": Wanted(tuple(layer.absmax.shape), (layer.absmax.dtype,)),
            "weight.quant_map": Wanted((16,), (torch.float32,)),
            present[0]: Wanted(tuple(metas[present[0]].shape), (torch.uint8,)),
        }
        if layer.nested_absmax is not None:
            wanted["weight.nested_absmax"] = Wanted(tuple(layer.nested_absmax.shape), (torch.float32,))
            wanted["weight.nested_quant_map"] = Wanted((256,), (torch.float32,))
        return Form(inner, out, wanted)

    def _empty(self, inner: int, out: int, state: dict[str, Any]) -> NF4Linear:
        with torch.device("meta"):
            return NF4Linear(inner, out, block=state["blocksize"], nested_block=state.get("nested_blocksize") or 0)

    def layer(self, stored: dict[str, Tensor]) -> NF4Linear:
        state = read_state(next(tensor for part, tensor in stored.items() if part.startswith(STATE)))
        out, inner = state["shape"]
        new = self._empty(inner, out, state)
        new.packed, new.absmax, new.quant_map = (stored[part] for part in FourBitLayout.parts[:3])
        if new.nested_block:
            new.nested_absmax, new.nested_quant_map = (stored[part] for part in FourBitLayout.parts[3:5])
            new.offset = torch.tensor(float(state["nested_offset"]))
        return new

    def stored(self, layer: Any) -> dict[str, Tensor]:
        table = "nf4" if float(layer.quant_map[0]) == -1 else "fp4"
        state = {"quant_type": table, "blocksize": layer.block, "dtype": "float32"}
        state["shape"] = [layer.out_features, layer.in_features]
        stored = {"weight": layer.packed, "weight.absmax": layer.absmax, "weight.quant_map": layer.quant_map}
        if layer.nested_block:
            state |= {"nested_blocksize": layer.nested_block, "nested_dtype": "float32"}
            state["nested_offset"] = float(layer.offset)
            stored |= {
                "weight.nested_absmax": layer.nested_absmax,
                "weight.nested_quant_map": layer.nested_quant_map,
            }
        text = json.dumps(state).encode()
        # tables are one tensor for all layers in memory, and each layer's own in the file
        copies = {part: tensor.clone() if "map" in part else tensor for part, tensor in stored.items()}
        return copies | {STATE + table: torch.frombuffer(bytearray(text), dtype=torch.uint8)}

    def check_rows(self, layer: Any) -> None:
        if layer.in_features % layer.block or layer.in_features % 2:
            raise UsageError(f"rows of {layer.in_features} inputs do not end where blocks of {layer.block} do")

    def rows(self, layer: Any) -> Rows:
        self.check_rows(layer)
        packed = layer.packed.view(layer.out_features, -1)
        each = {"packed": packed, "absmax": layer.scales().view(layer.out_features, -1)}
        return Rows(each, {"quant_map": layer.quant_map, "block": layer.block})

    def from_rows(self, rows: Rows) -> NF4Linear:
        packed, absmax = rows.each["packed"], rows.each["absmax"]
        new = NF4Linear(
            packed.shape[1] * 2, len(packed), device=packed.device, block=rows.shared["block"], nested_block=0
        )
        new.packed, new.absmax = packed.reshape(-1, 1), absmax.flatten()
        new.quant_map = rows.shared["quant_map"]
        return new


def read_state(tensor: Tensor) -> dict[str, Any]:
    """What a tensor of bytes tells of a 4-bit matrix.

    Raises:
        CheckpointError: not JSON, or not whole.
    """
    try:
        state = json.loads(bytes(tensor.tolist()))
    except ValueError:
        raise CheckpointError("quant_state is no JSON") from None
    shape = state.get("shape") if isinstance(state, dict) else None
    sizes = [*shape, state.get("blocksize")] if isinstance(shape, list) else []
    nested = state.get("nested_blocksize") if isinstance(state, dict) else None
    whole = all(isinstance(size, int) and 0 < size < 2**32 for size in [*sizes, *([nested] if nested else [])])
    if len(sizes) != 3 or not whole or (nested and not isinstance(state.get("nested_offset"), float | int)):
        raise CheckpointError(f"quant_state is not whole: {state!s:.120}")
    return state


class EightBitLayout(BitsAndBytesLayout):
    """8 bits: `weight` int8 and `SCB`, each row's largest number (LLM.int8(), Dettmers et al. 2022)."""

    mark = "SCB"
    parts = ("weight", "SCB", "weight_format")

    def describe(self, unchanged: list[str]) -> dict[str, Any]:
        return {
            **{"quant_method": "bitsandbytes", "load_in_4bit": False, "load_in_8bit": True},
            **{"llm_int8_threshold": 6.0, "llm_int8_skip_modules": unchanged},
        }

    def form(self, metas: Mapping[str, TensorMeta], get: Callable[[str], Tensor]) -> Form:
        if "weight" not in metas or len(metas["weight"].shape) != 2:
            raise CheckpointError("lacks its matrix `weight`: the file is not whole")
        if "weight_format" in metas and (metas["weight_format"].nbytes > 8 or int(get("weight_format").max()) != 0):
            raise CheckpointError("weight_format is not that of rows, the one that is read here")
        out, inner = metas["weight"].shape
        wanted = {"weight": Wanted((out, inner), (torch.int8,)), "SCB": Wanted((out,), FLOATS)}
        if "weight_format" in metas:
            wanted["weight_format"] = Wanted(tuple(metas["weight_format"].shape), (torch.uint8, torch.int8))
        return Form(inner, out, wanted)

    def layer(self, stored: dict[str, Tensor]) -> Int8Linear:
        out, inner = stored["weight"].shape
        with torch.device("meta"):
            new = Int8Linear(inner, out)
        new.q, new.scale = stored["weight"], stored["SCB"].float() / 127
        return new

    def stored(self, layer: Any) -> dict[str, Tensor]:
        return {"weight": layer.q, "SCB": layer.scale * 127, "weight_format": torch.zeros((), dtype=torch.uint8)}

    def rows(self, layer: Any) -> Rows:
        return Rows({"weight": layer.q, "SCB": layer.scale * 127}, {})

    def from_rows(self, rows: Rows) -> Int8Linear:
        return self.layer(rows.each)
