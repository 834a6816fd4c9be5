"""What a layout of files has to say. A linear layer is several tensors there, under its name:

    model.layers.0.mlp.up_proj.qweight, .qzeros, .scales, .g_idx

Matrices are (out, in) in all of them, those of GPT-2's Conv1D too. Where a file holds several of our layers in one,
one after another along the outputs, they are taken apart by rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from groundup.base.safetensors_header import TensorMeta
from groundup.quantization.linear import QuantizedLinear


@dataclass
class Rows:
    """A quantized matrix whose outputs can be taken apart and joined.

    Attributes:
        each: tensors whose first dimension is that of the outputs.
        shared: what belongs to all outputs.
    """

    each: dict[str, Tensor]
    shared: dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What a tensor of a layer must be. `optional`: whether it may be absent."""

    shape: tuple[int, ...]
    dtypes: tuple[torch.dtype, ...]
    optional: bool = False


@dataclass(frozen=True)
class Form:
    """A layer in a file: `inner` inputs, `out` outputs, part -> what it must be."""

    inner: int
    out: int
    wanted: dict[str, Wanted]


FLOATS = (torch.float16, torch.bfloat16, torch.float32)


class Layout:
    """One form of files. Made from the `quantization_config` of a config.json, or from our settings.

    Attributes:
        config: our settings that it stands for, a QuantizationConfig.
    """

    method: ClassVar[str]
    """`quant_method` in config.json."""
    mark: ClassVar[str]
    """The tensor by whose name a quantized layer is known."""
    parts: ClassVar[tuple[str, ...]]
    """The names of all tensors of a layer."""

    config: Any

    def __init__(self, config: Any):
        self.config = config

    @classmethod
    def read(cls, described: dict[str, Any]) -> "Layout":
        """From `quantization_config`; a CheckpointError says what is not built here."""
        raise NotImplementedError

    def describe(self, unchanged: list[str]) -> dict[str, Any]:
        """`quantization_config`; `unchanged` are their names of linear layers that keep their precision."""
        raise NotImplementedError

    def in_config(self, unchanged: list[str]) -> dict[str, Any]:
        """What config.json holds of it."""
        return {"quantization_config": self.describe(unchanged)}

    def form(self, metas: Mapping[str, TensorMeta], get: Callable[[str], Tensor]) -> "Form":
        """The size of a layer, and what its tensors must be.

        Args:
            metas: part -> what the header tells of it; some may be absent.
            get: reads a part: only small ones that describe others.

        Raises:
            UsageError, CheckpointError: the layout has no place for such a layer.
        """
        raise NotImplementedError

    def layer(self, stored: dict[str, Tensor]) -> QuantizedLinear:
        """The layer, without a bias, from its tensors in the file."""
        raise NotImplementedError

    def stored(self, layer: QuantizedLinear) -> dict[str, Tensor]:
        """The tensors of a layer in the file."""
        raise NotImplementedError

    def check_rows(self, layer: QuantizedLinear) -> None:
        """Raise a UsageError where rows do not end where blocks of numbers do."""

    def rows(self, layer: QuantizedLinear) -> Rows:
        """What can be taken apart; a UsageError as `check_rows`."""
        raise NotImplementedError

    def from_rows(self, rows: Rows) -> QuantizedLinear:
        """The inverse of `rows`."""
        raise NotImplementedError
