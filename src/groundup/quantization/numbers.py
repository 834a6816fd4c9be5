"""The number formats of large models: how many bits, how far they reach, how fine they are. Imports no torch.

    value = (-1)^sign 2^(exponent - bias) (1 + mantissa / 2^m)       normal numbers
    value = (-1)^sign 2^(1 - bias) (mantissa / 2^m)                  exponent 0: subnormal numbers, and zero

Exponent bits buy range, mantissa bits buy precision. All numbers of all formats here are float64 numbers too, so
Python's floats hold them exactly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal


@dataclass(frozen=True)
class FloatFormat:
    """A floating-point format.

    Args:
        name: what it is called; exponent_bits, mantissa_bits: besides the sign.
        specials: what the largest exponent is for: "ieee": infinity and NaN; "nan": numbers too, but for one NaN;
            "none": numbers alone.
        source: where it is defined.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    specials: Literal["ieee", "nan", "none"] = "ieee"
    source: str = ""

    @property
    def bits(self) -> int:
        """Bits that carry something; tf32 has 19 of them and lies in 32."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def bias(self) -> int:
        """What is taken from the stored exponent."""
        return 2 ** (self.exponent_bits - 1) - 1

    @property
    def largest(self) -> float:
        """The largest finite number."""
        top = 2**self.exponent_bits - (2 if self.specials == "ieee" else 1) - self.bias
        missing = 2 if self.specials == "nan" else 1  # its mantissa of ones is NaN
        return math.ldexp(2 - missing * 2.0**-self.mantissa_bits, top)

    @property
    def smallest_normal(self) -> float:
        """2^(1 - bias): below it precision is lost bit by bit."""
        return math.ldexp(1.0, 1 - self.bias)

    @property
    def smallest_subnormal(self) -> float:
        """The smallest number above zero."""
        return math.ldexp(1.0, 1 - self.bias - self.mantissa_bits)

    def spacing(self, x: float) -> float:
        """The distance from |x| to the next number away from zero."""
        exponent = math.frexp(x)[1] - 1 if x else 1 - self.bias
        return math.ldexp(1.0, max(exponent, 1 - self.bias) - self.mantissa_bits)

    def round(self, x: float) -> float:
        """The nearest number, the even one of two. Beyond the largest: infinity, or the largest where the format has no
        infinity (the saturating mode of OCP's FP8, as torch 2.13 casts; the other mode gives NaN).
        """
        if math.isnan(x):
            return x
        if math.isinf(x):
            return self._beyond(x)
        spacing = self.spacing(x)
        nearest = round(x / spacing) * spacing  # a division by a power of two is exact
        return self._beyond(x) if abs(nearest) > self.largest else math.copysign(nearest, x)

    def _beyond(self, x: float) -> float:
        return math.copysign(math.inf if self.specials == "ieee" else self.largest, x)

    def decode(self, pattern: int) -> float:
        """The number that a pattern of bits stands for."""
        sign = -1.0 if pattern >> (self.bits - 1) else 1.0
        exponent = (pattern >> self.mantissa_bits) & (2**self.exponent_bits - 1)
        mantissa = pattern & (2**self.mantissa_bits - 1)
        if exponent == 2**self.exponent_bits - 1 and self.specials != "none":
            if self.specials == "ieee":
                return math.nan if mantissa else sign * math.inf
            if mantissa == 2**self.mantissa_bits - 1:
                return math.nan
        if exponent == 0:
            return sign * mantissa * self.smallest_subnormal
        return sign * math.ldexp(1 + mantissa / 2**self.mantissa_bits, exponent - self.bias)

    def encode(self, x: float) -> int:
        """The pattern of a number after rounding."""
        x = self.round(x)
        sign = (math.copysign(1.0, x) < 0) << (self.bits - 1)
        if not math.isfinite(x):
            top = (2**self.exponent_bits - 1) << self.mantissa_bits
            quiet = 2 ** (self.mantissa_bits - 1) if self.specials == "ieee" else 2**self.mantissa_bits - 1
            return sign | top | (quiet if math.isnan(x) else 0)
        # Patterns of one sign count up with the numbers: the exponent's step is 2^m patterns.
        if abs(x) < self.smallest_normal:
            return sign | int(abs(x) / self.smallest_subnormal)
        exponent = math.frexp(x)[1] - 1
        steps = int(abs(x) / self.spacing(x)) - 2**self.mantissa_bits
        return sign | (exponent + self.bias) << self.mantissa_bits | steps

    def pattern(self, x: float) -> str:
        """The bits of a number: sign, exponent, mantissa."""
        text = f"{self.encode(x):0{self.bits}b}"
        return f"{text[0]} {text[1 : 1 + self.exponent_bits]} {text[1 + self.exponent_bits :]}".strip()

    def values(self) -> list[float]:
        """All finite numbers, rising; zero once. For formats of few bits."""
        return sorted({v + 0.0 for v in map(self.decode, range(2**self.bits)) if math.isfinite(v)})


@dataclass(frozen=True)
class TableFormat:
    """A format whose numbers stand in a table, such as integers. A block of them shares a scale, since the table alone
    reaches too little.

    Args:
        name, bits: of one number; numbers: rising.
        top: what the largest magnitude of a block becomes.
        block: how many numbers usually share a scale; source: where it is defined.
    """

    name: str
    bits: int
    numbers: tuple[float, ...]
    top: float
    block: str = ""
    source: str = ""

    def values(self) -> list[float]:
        """All numbers, rising."""
        return list(self.numbers)

    def round(self, x: float) -> float:
        """The nearest number, the even entry of two; the ends beyond them."""
        at = min(range(len(self.numbers)), key=lambda i: (abs(self.numbers[i] - x), self.numbers[i] % 2))
        return self.numbers[at]

    def round_scaled(self, x: float, largest: float) -> float:
        """A number of a block whose largest magnitude is `largest`: s round(x / s), s = largest / top."""
        scale = largest / self.top
        return scale * self.round(x / scale)


@dataclass(frozen=True)
class BlockFloat:
    """Small floats that share a power of two (OCP Microscaling Formats 1.0, 2023).

    Args:
        name: what it is called; element: one number; block: how many share a scale; source: where it is defined.
    """

    name: str
    element: FloatFormat
    block: int
    source: str = ""

    @property
    def bits(self) -> int:
        """Of one number; the scale's 8 come on top for a block."""
        return self.element.bits

    def values(self) -> list[float]:
        """All numbers of an element, rising."""
        return self.element.values()

    def scale(self, largest: float) -> float:
        """2^(floor(log2 largest) - the element's largest exponent), within 2^-127 .. 2^127."""
        if largest == 0:
            return 2.0**-127
        top = math.frexp(self.element.largest)[1] - 1
        return math.ldexp(1.0, min(max(math.frexp(largest)[1] - 1 - top, -127), 127))

    def round_scaled(self, x: float, largest: float) -> float:
        """A number of a block whose largest magnitude is `largest`; what does not fit becomes the largest element."""
        scale = self.scale(largest)
        return scale * self.element.round(x / scale)

    def round_block(self, block: Sequence[float]) -> list[float]:
        """All numbers of a block."""
        largest = max(map(abs, block))
        return [self.round_scaled(x, largest) for x in block]


NumberFormat = FloatFormat | TableFormat | BlockFloat


FP32 = FloatFormat("fp32", 8, 23, source="IEEE 754 binary32")


OUTERMOST = 0.9677083
"""The outermost quantile of NF4: about the middle of 1 - 1/32 and 1 - 1/30, half a step of 16 and of 15 levels."""


def normal_float_4() -> tuple[float, ...]:
    """The 16 levels of NF4 (Dettmers et al. 2023, QLoRA, appendix E), ascending: quantiles of the normal distribution.

    Seven below 0 and eight above it, at evenly spaced probabilities from `OUTERMOST` to 1/2 on each side; with 0, and
    divided by the largest. So each level is used about as often where weights are normal. Every step is rounded to
    float32, as it was when the published levels were computed: the numbers are theirs to the last bit.
    """
    quantile = NormalDist().inv_cdf
    above = [FP32.round(quantile(p)) for p in _evenly_from_outermost(9)]
    below = [FP32.round(-quantile(p)) for p in _evenly_from_outermost(8)]
    levels = sorted([*above, 0.0, *below])
    return tuple(FP32.round(x / levels[-1]) for x in levels)


def _evenly_from_outermost(count: int) -> list[float]:
    """Float32 numbers with equal steps from `OUTERMOST` to 1/2, counted from the nearer end; 1/2 itself is left out."""
    first = FP32.round(OUTERMOST)
    step = FP32.round((0.5 - first) / (count - 1))
    ahead = [FP32.round(first + FP32.round(step * i)) for i in range(count // 2)]
    return ahead + [FP32.round(0.5 - FP32.round(step * (count - 1 - i))) for i in range(count // 2, count - 1)]


def _integers(bits: int) -> TableFormat:
    most = 2 ** (bits - 1) - 1
    return TableFormat(f"int{bits}", bits, tuple(map(float, range(-most - 1, most + 1))), most, "a row, or 32 to 128")


FORMATS: dict[str, NumberFormat] = {
    "fp32": FP32,
    "tf32": FloatFormat("tf32", 8, 10, source="NVIDIA A100 (2020): inside matrix products; numbers lie in 32 bits"),
    "fp16": FloatFormat("fp16", 5, 10, source="IEEE 754 binary16"),
    "bf16": FloatFormat("bf16", 8, 7, source="Google Brain: fp32 without its last 16 bits"),
    "fp8 e4m3": FloatFormat("fp8 e4m3", 4, 3, "nan", "Micikevicius et al. 2022"),
    "fp8 e5m2": FloatFormat("fp8 e5m2", 5, 2, source="Micikevicius et al. 2022"),
    "int8": _integers(8),
    "int4": _integers(4),
    "nf4": TableFormat("nf4", 4, normal_float_4(), 1.0, "64", "Dettmers et al. 2023 (QLoRA)"),
    "mxfp4": BlockFloat("mxfp4", FloatFormat("fp4 e2m1", 2, 1, "none"), 32, "OCP Microscaling Formats 1.0 (2023)"),
}


def rounded(form: NumberFormat, x: float, largest: float) -> float:
    """What a format makes of a number; `largest` is the largest magnitude of its block where there is a scale."""
    return form.round(x) if isinstance(form, FloatFormat) else form.round_scaled(x, largest)
