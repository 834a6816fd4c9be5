"""The files of GPTQ and AWQ."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from groundup.base.errors import CheckpointError
from groundup.base.safetensors_header import TensorMeta
from groundup.quantization.bitstream import pack, period, unpack
from groundup.quantization.configs.awq import AWQConfig
from groundup.quantization.configs.gptq import GPTQConfig
from groundup.quantization.grouped_linear import AWQLinear, GPTQLinear, GroupedIntegersLinear
from groundup.quantization.groups import Grouped
from groundup.quantization.layouts.layout import FLOATS, Form, Layout, Rows, Wanted


class GroupedLayout(Layout):
    """What both share: `qweight`, `qzeros`, `scales`."""

    mark = "qweight"
    kind: ClassVar[type[GroupedIntegersLinear]]

    def form(self, metas: Mapping[str, TensorMeta], get: Callable[[str], Tensor]) -> Form:
        shape = metas["qweight"].shape
        if len(shape) != 2:
            raise CheckpointError(f"qweight must be a matrix, not {tuple(shape)}")
        inner, out = self._sizes(shape)
        form = self.kind.form(inner, out, self.config.bits, self.config.group_size)
        wanted = {
            name: Wanted(shape, FLOATS if dtype.is_floating_point else (dtype,), optional=name == "g_idx")
            for name, (shape, dtype) in form.items()
        }
        return Form(inner, out, wanted)

    def layer(self, stored: dict[str, Tensor]) -> GroupedIntegersLinear:
        inner, out = self._sizes(stored["qweight"].shape)
        new = self.kind(inner, out, bits=self.config.bits, group_size=self.config.group_size)
        for name, tensor in stored.items():
            setattr(new, name, tensor)
        return new

    def stored(self, layer: Any) -> dict[str, Tensor]:
        return {name: getattr(layer, name) for name in self.parts}

    def rows(self, layer: Any) -> Rows:
        numbers = layer.grouped()
        each = {"codes": numbers.codes, "scales": numbers.scales, "zeros": numbers.zeros}
        return Rows(each, {"groups": numbers.groups})

    def from_rows(self, rows: Rows) -> GroupedIntegersLinear:
        return self.kind.from_grouped(Grouped(**rows.each, **rows.shared), self.config.bits, self.config.group_size)

    def _sizes(self, shape: Any) -> tuple[int, int]:
        """(in, out) from the shape of qweight."""
        raise NotImplementedError


class GPTQLayout(GroupedLayout):
    """AutoGPTQ's and GPTQModel's. `gptq` stores each zero less one, `gptq_v2` as it is.

    Files are written as `gptq` where all zeros stand in the middle, which every reader knows; other zeros as `gptq_v2`,
    because a zero of 0 has no number in the first form.
    """

    method = "gptq"
    kind = GPTQLinear
    parts = ("qweight", "qzeros", "scales", "g_idx")

    def __init__(self, config: GPTQConfig, less_one: bool | None = None):
        super().__init__(config)
        self.less_one = config.symmetric if less_one is None else less_one

    @classmethod
    def read(cls, described: dict[str, Any]) -> "GPTQLayout":
        """Keys that only tell how the file was made are passed over."""
        form = described.get("checkpoint_format") or described.get("format") or "gptq"
        bits = described.get("bits")
        if form not in ("gptq", "gptq_v2"):
            raise CheckpointError(f"config.json: `checkpoint_format` is {form!r:.80}; gptq and gptq_v2 are read here")
        if bits not in GPTQLinear.BITS:
            raise CheckpointError(f"config.json: `bits` is {bits!r:.80}; {GPTQLinear.BITS} are read here")
        config = GPTQConfig(
            bits=bits,
            group_size=_group_size(described.get("group_size", 128)),
            symmetric=bool(described.get("sym", True)),
            desc_act=bool(described.get("desc_act", False)),
        )
        return cls(config, less_one=form == "gptq")

    def describe(self, unchanged: list[str]) -> dict[str, Any]:
        c = self.config
        return {
            **{"quant_method": "gptq", "bits": c.bits, "group_size": c.group_size, "desc_act": c.desc_act},
            **{"sym": c.symmetric, "damp_percent": c.damping, "lm_head": False, "pack_dtype": "int32"},
            "checkpoint_format": "gptq" if self.less_one else "gptq_v2",
        }

    def layer(self, stored: dict[str, Tensor]) -> GroupedIntegersLinear:
        new = super().layer(self._zeros(stored, 1))
        if "g_idx" not in stored:
            size = new.in_features // len(new.scales)
            new.g_idx = torch.arange(new.in_features).div(size, rounding_mode="floor").int()  # type: ignore[assignment]
        return new

    def stored(self, layer: Any) -> dict[str, Tensor]:
        return self._zeros(super().stored(layer), -1)

    def _zeros(self, stored: dict[str, Tensor], change: int) -> dict[str, Tensor]:
        if not self.less_one:
            return stored
        bits = self.config.bits
        zeros = (unpack(stored["qzeros"], bits).int() + change) & (2**bits - 1)
        return stored | {"qzeros": pack(zeros, bits)}

    def _sizes(self, shape: Any) -> tuple[int, int]:
        count, words = period(self.config.bits)
        return shape[0] * count // words, shape[1]


class AWQLayout(GroupedLayout):
    """AutoAWQ's, version `gemm`."""

    method = "awq"
    kind = AWQLinear
    parts = ("qweight", "qzeros", "scales")

    @classmethod
    def read(cls, described: dict[str, Any]) -> "AWQLayout":
        version = str(described.get("version") or described.get("format") or "gemm").lower()
        bits = described.get("bits", described.get("w_bit", 4))
        if version != "gemm":
            raise CheckpointError(f"config.json: `version` is {version!r:.80}; only gemm is read here")
        if bits != 4 or described.get("zero_point", True) is not True:
            raise CheckpointError("config.json: AWQ is read here with 4 bits and zero points alone")
        return cls(AWQConfig(group_size=_group_size(described.get("group_size", described.get("q_group_size", 128)))))

    def describe(self, unchanged: list[str]) -> dict[str, Any]:
        return {
            **{"quant_method": "awq", "bits": 4, "group_size": self.config.group_size, "zero_point": True},
            **{"version": "gemm", "modules_to_not_convert": unchanged},
        }

    def _sizes(self, shape: Any) -> tuple[int, int]:
        return shape[0], shape[1] * 8


def _group_size(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or (value < 1 and value != -1):
        raise CheckpointError(f"config.json: `group_size` is {value!r:.80}; a number above 0, or -1, is meant")
    return value
