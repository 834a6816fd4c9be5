"""Linear layers of grouped integers, stored as GPTQ's and AWQ's files have them.

GPTQ packs along the inputs, AWQ along the outputs, where the order within a word is 0 2 4 6 1 3 5 7.
"""

from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from groundup.base.errors import UsageError
from groundup.quantization.bitstream import pack, period, unpack
from groundup.quantization.groups import Grouped, group_count
from groundup.quantization.linear import Levels, QuantizedLinear

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Place in a word -> which of eight numbers stands there: the order in which AWQ's kernels unpack pairs of halves."""


class GroupedIntegersLinear(QuantizedLinear):
    """What both have in common.

    Args:
        in_features, out_features, bias: see QuantizedLinear.
        bits: of a number.
        group_size: inputs of a group; -1 for all.

    Attributes:
        qweight, qzeros: packed int32.
        scales: (groups, out) floating.
    """

    BITS: ClassVar[tuple[int, ...]]
    qweight: Tensor
    qzeros: Tensor
    scales: Tensor

    def __init__(
        self, in_features: int, out_features: int, bias: bool = False, device: Any = None, *, bits: int, group_size: int
    ):
        super().__init__(in_features, out_features, bias, device)
        self.bits, self.group_size = bits, group_size
        for name, (shape, dtype) in self.form(in_features, out_features, bits, group_size).items():
            self.register_buffer(name, torch.zeros(shape, dtype=dtype, device=device))

    @classmethod
    def form(cls, inner: int, out: int, bits: int, group_size: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """The tensors of a layer of that size: name -> shape and dtype.

        Raises:
            UsageError: the layout has no place for such a size.
        """
        raise NotImplementedError

    def grouped(self) -> Grouped:
        """What is stored, unpacked."""
        raise NotImplementedError

    def store(self, numbers: Grouped) -> Self:
        """Take over numbers, packed."""
        raise NotImplementedError

    @classmethod
    def from_grouped(cls, numbers: Grouped, bits: int, group_size: int, bias: nn.Parameter | None = None) -> Self:
        """A layer of these numbers."""
        out, inner = numbers.codes.shape
        new = cls(inner, out, device=numbers.codes.device, bits=bits, group_size=group_size)
        new.bias = bias
        return new.store(numbers)

    def dequantize(self) -> Tensor:
        return self.grouped().dequantize()

    def levels(self) -> Levels | None:
        """None where columns were taken in another order, so that groups are no runs of inputs."""
        numbers = self.grouped()
        scales = numbers.scales.float()
        runs = torch.arange(scales.shape[1], device=scales.device).repeat_interleave(
            self.in_features // scales.shape[1]
        )
        if not torch.equal(numbers.groups.long(), runs):
            return None
        return Levels(numbers.codes, scales, -scales * numbers.zeros.float())


def _whole_words(count: int, bits: int, what: str) -> int:
    numbers, words = period(bits)
    if count % numbers:
        raise UsageError(
            f"{count} {what} of {bits} bits do not fill whole words of 32 bits (a multiple of {numbers} does)"
        )
    return count // numbers * words


class GPTQLinear(GroupedIntegersLinear):
    """GPTQ's layout (Frantar et al. 2022; AutoGPTQ's files). Zeros are the true ones, as in `gptq_v2`.

    Attributes:
        qweight: (in bits / 32, out) int32, packed along the inputs.
        qzeros: (groups, out bits / 32) int32.
        scales: (groups, out) float16.
        g_idx: (in,) int32, the group of each input.
    """

    BITS = (2, 3, 4, 8)
    g_idx: Tensor

    @classmethod
    def form(cls, inner: int, out: int, bits: int, group_size: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        groups = group_count(inner, group_size)
        return {
            "qweight": ((_whole_words(inner, bits, "inputs"), out), torch.int32),
            "qzeros": ((groups, _whole_words(out, bits, "outputs")), torch.int32),
            "scales": ((groups, out), torch.float16),
            "g_idx": ((inner,), torch.int32),
        }

    def grouped(self) -> Grouped:
        codes, zeros = unpack(self.qweight.T, self.bits), unpack(self.qzeros, self.bits)
        return Grouped(codes, self.scales.T, zeros.T, self.g_idx)

    def store(self, numbers: Grouped) -> Self:
        self.qweight = pack(numbers.codes, self.bits).T.contiguous()
        self.qzeros = pack(numbers.zeros.T, self.bits)
        self.scales = numbers.scales.T.contiguous()
        self.g_idx = numbers.groups.int()
        return self


class AWQLinear(GroupedIntegersLinear):
    """AWQ's layout for matrix products, `gemm` (Lin et al. 2023; AutoAWQ's files).

    Attributes:
        qweight: (in, out / 8) int32, packed along the outputs.
        qzeros: (groups, out / 8) int32.
        scales: (groups, out) float16.
    """

    BITS = (4,)

    @classmethod
    def form(cls, inner: int, out: int, bits: int, group_size: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        groups, words = group_count(inner, group_size), _whole_words(out, bits, "outputs")
        return {
            "qweight": ((inner, words), torch.int32),
            "qzeros": ((groups, words), torch.int32),
            "scales": ((groups, out), torch.float16),
        }

    def grouped(self) -> Grouped:
        codes, zeros = (_in_turn(unpack(packed, self.bits)) for packed in (self.qweight, self.qzeros))
        size = self.in_features // len(self.scales)
        groups = torch.arange(self.in_features, device=codes.device).div(size, rounding_mode="floor").int()
        return Grouped(codes.T, self.scales.T, zeros.T, groups)

    def store(self, numbers: Grouped) -> Self:
        self.qweight = pack(_interleaved(numbers.codes.T), self.bits)
        self.qzeros = pack(_interleaved(numbers.zeros.T), self.bits)
        self.scales = numbers.scales.T.contiguous()
        return self


def _interleaved(codes: Tensor) -> Tensor:
    return codes.unflatten(-1, (-1, 8))[..., list(AWQ_ORDER)].flatten(-2)


def _in_turn(codes: Tensor) -> Tensor:
    back = sorted(range(8), key=AWQ_ORDER.__getitem__)
    return codes.unflatten(-1, (-1, 8))[..., back].flatten(-2)
