"""What all compiled steps compute with: e^x, tanh, norms, activations and sums of rows."""

import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from groundup.generation.few_rows.kernels.vectors import floats_at
from groundup.generation.few_rows.kinds import GELU, LAYER, SILU, SQUARED_RELU, TANH_GELU

# Sums may be reordered into vectors, but NaN and infinity must come through; division by zero is theirs too.
MATHEMATICS: Any = {"fastmath": {"reassoc", "contract", "arcp", "nsz"}, "error_model": "numpy", "cache": True}
LOG2_E = np.float32(math.log2(math.e))
SMALLEST_EXPONENT = np.float32(-126.0)
ONE, TWO, A_HALF, NOTHING = np.float32(1), np.float32(2), np.float32(0.5), np.float32(0)
# 2^f for f in [-1/2, 1/2]: the first terms of the series of e^(f ln 2), to float32's last digit
SERIES = tuple(np.float32(math.log(2) ** i / math.factorial(i)) for i in range(8))

ROOT_HALF = np.float32(math.sqrt(0.5))
TANH_SCALE, TANH_CUBE = np.float32(2 * math.sqrt(2 / math.pi)), np.float32(0.044715)


@intrinsic
def power_of_two(typing: Any, exponent: Any) -> Any:
    """2^n as a float32, for an int32 n from -126 to 127: its bits are (n + 127) << 23."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(32)
        biased = builder.add(arguments[0], ir.Constant(word, 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(word, 23)), ir.FloatType())

    return types.float32(types.int32), generate


@numba.njit(**MATHEMATICS)
def exponential(x: Any) -> Any:
    """e^x of a float32, in operations that the compiler puts into vectors: 2^n * 2^f with n + f = x log2(e)."""
    power = max(min(x * LOG2_E, -SMALLEST_EXPONENT), SMALLEST_EXPONENT)
    whole = np.floor(power + A_HALF)
    f = power - whole
    value = SERIES[7]
    for i in range(6, -1, -1):
        value = value * f + SERIES[i]
    return value * power_of_two(np.int32(whole))  # type: ignore[call-arg]


@numba.njit(**MATHEMATICS)
def hyperbolic_tangent(x: Any) -> Any:
    """Tanh of a float32: 1 - 2 / (1 + e^2x)."""
    return ONE - TWO / (ONE + exponential(TWO * x))


@numba.njit(**MATHEMATICS)
def normalise(kind: Any, weight: Any, bias: Any, eps: Any, x: Any, out: Any) -> None:
    """Each row of x (B, D), normalised, times weight, plus bias, into out, which may be x."""
    size = x.shape[1]
    scales, shifts = numba.carray(floats_at(weight), size), numba.carray(floats_at(bias), size)  # type: ignore[call-arg]
    for b in range(x.shape[0]):
        mean = NOTHING
        if kind == LAYER:
            for i in range(size):
                mean += x[b, i]
            mean = np.float32(mean / size)
        squares = NOTHING
        for i in range(size):
            squares += (x[b, i] - mean) * (x[b, i] - mean)
        factor = np.float32(1 / math.sqrt(squares / size + eps))
        for i in range(size):
            out[b, i] = (x[b, i] - mean) * factor
        if weight != 0:
            for i in range(size):
                out[b, i] *= scales[i]
        if bias != 0:
            for i in range(size):
                out[b, i] += shifts[i]


@numba.njit(**MATHEMATICS)
def add(x: Any, y: Any) -> None:
    """Add y to x, both (B, D)."""
    for b in range(x.shape[0]):
        for i in range(x.shape[1]):
            x[b, i] += y[b, i]


@numba.njit(**MATHEMATICS)
def add_bias(x: Any, bias: Any) -> None:
    """Add the numbers at an address to each row of x (B, D); nothing where there is none."""
    if bias != 0:
        numbers = numba.carray(floats_at(bias), x.shape[1])  # type: ignore[call-arg]
        for b in range(x.shape[0]):
            for i in range(x.shape[1]):
                x[b, i] += numbers[i]


@numba.njit(**MATHEMATICS)
def activate(kind: Any, x: Any) -> None:
    """Put act(x) in the place of x (F,)."""
    if kind == SILU:
        for i in range(x.shape[0]):
            x[i] = x[i] / (ONE + exponential(-x[i]))
    elif kind == TANH_GELU:
        # x (1 + tanh(z)) / 2 = x / (1 + e^-2z) with z = sqrt(2 / pi) (x + 0.044715 x^3)
        for i in range(x.shape[0]):
            x[i] = x[i] / (ONE + exponential(-TANH_SCALE * x[i] * (ONE + TANH_CUBE * x[i] * x[i])))
    elif kind == GELU:
        for i in range(x.shape[0]):
            x[i] = A_HALF * x[i] * (ONE + math.erf(x[i] * ROOT_HALF))
    else:
        for i in range(x.shape[0]):
            x[i] = NOTHING if x[i] < NOTHING else x[i]
        if kind == SQUARED_RELU:
            for i in range(x.shape[0]):
                x[i] = x[i] * x[i]
