"""A decoding step of a whole Llama-style block in one compiled function: between the products with its weights only a
few thousand numbers move, so what an operation costs to start would count for more than what it does. Needs numba.
"""

import functools
import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from groundup.generation.few_rows_kernel import product

# Sums may be reordered into vectors, but NaN and infinity must come through; division by zero is theirs too.
MATHEMATICS: Any = {"fastmath": {"reassoc", "contract", "arcp", "nsz"}, "error_model": "numpy", "cache": True}
LOG2_E = np.float32(math.log2(math.e))
SMALLEST_EXPONENT = np.float32(-126.0)
ONE, HALF = np.float32(1), np.float32(0.5)
# 2^f for f in [-1/2, 1/2]: the first terms of the series of e^(f ln 2), to float32's last digit
SERIES = tuple(np.float32(math.log(2) ** i / math.factorial(i)) for i in range(8))


@functools.cache
def block_step(stored_bfloat16: bool) -> Any:
    """The compiled function: one more token a row through norm, attention, norm and gated MLP; x changes in place.

    Args of it:
        weights: addresses of q, k, v, o, gate, up, down (as stored) and of the two norms' weights (float32).
        eps: of the norms, twice.
        shape: (D, H, K, d, F): width, query heads, key-value heads, width of a head, width of the MLP.
        scale: of the scores.
        x: (B, D) float32.
        cosines, sines: (B or 1, d / 2) float32, of the tokens' positions.
        slots: (B or 1,) int64, where in its row of the cache each token goes; it sees that slot and those before.
        keys, values: (B, K, S, d) float32, the cache.
    """
    multiply = product(stored_bfloat16)

    @numba.njit(cache=True)
    def run(
        weights: Any,
        eps: Any,
        shape: Any,
        scale: Any,
        x: Any,
        cosines: Any,
        sines: Any,
        slots: Any,
        keys: Any,
        values: Any,
    ) -> None:
        b = x.shape[0]
        width, heads, kv_heads, d, hidden = shape
        wq, wk, wv, wo, wg, wu, wd, norm1, norm2 = weights

        h = np.empty((b, width), np.float32)
        q = np.empty((b, heads, d), np.float32)
        k = np.empty((b, kv_heads, d), np.float32)
        v = np.empty((b, kv_heads, d), np.float32)
        scores = np.empty((b, heads, keys.shape[2]), np.float32)
        rms_norm(x, norm1, eps[0], h)
        multiply(wq, h.ctypes.data, q.ctypes.data, heads * d, b, width)
        multiply(wk, h.ctypes.data, k.ctypes.data, kv_heads * d, b, width)
        multiply(wv, h.ctypes.data, v.ctypes.data, kv_heads * d, b, width)
        attend(q, k, v, cosines, sines, slots, keys, values, scale, scores)
        multiply(wo, q.ctypes.data, h.ctypes.data, width, b, heads * d)
        add(x, h)

        gate, up = np.empty((b, hidden), np.float32), np.empty((b, hidden), np.float32)
        rms_norm(x, norm2, eps[1], h)
        multiply(wg, h.ctypes.data, gate.ctypes.data, hidden, b, width)
        multiply(wu, h.ctypes.data, up.ctypes.data, hidden, b, width)
        swiglu(gate, up)
        multiply(wd, gate.ctypes.data, h.ctypes.data, width, b, hidden)
        add(x, h)

    return run


@numba.njit(**MATHEMATICS)
def rms_norm(x: Any, weight: Any, eps: Any, out: Any) -> None:
    """Put weight * x / sqrt(mean(x^2) + eps) of each row into out; weight is an address."""
    scales = numba.carray(floats_at(weight), x.shape[1])  # type: ignore[call-arg]
    for b in range(x.shape[0]):
        squares = np.float32(0)
        for i in range(x.shape[1]):
            squares += x[b, i] * x[b, i]
        factor = np.float32(1 / math.sqrt(squares / x.shape[1] + eps))
        for i in range(x.shape[1]):
            out[b, i] = scales[i] * (x[b, i] * factor)


@numba.njit(**MATHEMATICS)
def add(x: Any, y: Any) -> None:
    """Add y to x."""
    for b in range(x.shape[0]):
        for i in range(x.shape[1]):
            x[b, i] += y[b, i]


@numba.njit(**MATHEMATICS)
def swiglu(gate: Any, up: Any) -> None:
    """Put silu(gate) * up in the place of gate."""
    for b in range(gate.shape[0]):
        for i in range(gate.shape[1]):
            gate[b, i] = gate[b, i] / (ONE + exponential(-gate[b, i])) * up[b, i]


@numba.njit(parallel=True, **MATHEMATICS)
def attend(
    q: Any, k: Any, v: Any, cosines: Any, sines: Any, slots: Any, keys: Any, values: Any, scale: Any, scores: Any
) -> None:
    """Rotate q and k, keep k and v, and put each head's result in the place of q. Shapes as in `block_step`."""
    kv_heads = k.shape[1]
    shared = q.shape[1] // kv_heads
    for task in numba.prange(q.shape[0] * kv_heads):
        b, g = task // kv_heads, task % kv_heads
        row, slot = min(b, cosines.shape[0] - 1), slots[min(b, slots.shape[0] - 1)]
        rotate(k[b, g], cosines[row], sines[row])
        for i in range(k.shape[2]):
            keys[b, g, slot, i] = k[b, g, i]
            values[b, g, slot, i] = v[b, g, i]
        for head in range(g * shared, (g + 1) * shared):
            rotate(q[b, head], cosines[row], sines[row])
            attend_one(q[b, head], keys[b, g], values[b, g], slot + 1, scale, scores[b, head])


@numba.njit(**MATHEMATICS)
def rotate(x: Any, cosines: Any, sines: Any) -> None:
    """The half-split rotary embedding of one head, in place."""
    half = cosines.shape[0]
    for i in range(half):
        a, b = x[i], x[half + i]
        x[i] = a * cosines[i] - b * sines[i]
        x[half + i] = b * cosines[i] + a * sines[i]


@numba.njit(**MATHEMATICS)
def attend_one(q: Any, keys: Any, values: Any, count: int, scale: Any, scores: Any) -> None:
    """Put softmax(q keys^T scale) values, over the first `count` keys, in the place of q."""
    best = np.float32(-np.inf)
    for s in range(count):
        score = np.float32(0)
        for i in range(q.shape[0]):
            score += q[i] * keys[s, i]
        scores[s] = score * scale
        best = max(best, scores[s])
    total = np.float32(0)
    for s in range(count):
        scores[s] = exponential(scores[s] - best)
        total += scores[s]
    for i in range(q.shape[0]):
        q[i] = np.float32(0)
    for s in range(count):
        share = scores[s] / total
        for i in range(q.shape[0]):
            q[i] += share * values[s, i]


@numba.njit(**MATHEMATICS)
def exponential(x: Any) -> Any:
    """e^x of a float32, in operations that the compiler puts into vectors: 2^n * 2^f with n + f = x log2(e)."""
    power = max(min(x * LOG2_E, -SMALLEST_EXPONENT), SMALLEST_EXPONENT)
    whole = np.floor(power + HALF)
    f = power - whole
    value = SERIES[7]
    for i in range(6, -1, -1):
        value = value * f + SERIES[i]
    return value * power_of_two(np.int32(whole))  # type: ignore[call-arg]


@intrinsic
def power_of_two(typing: Any, exponent: Any) -> Any:
    """2^n as a float32, for an int32 n from -126 to 127: its bits are (n + 127) << 23."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(32)
        biased = builder.add(arguments[0], ir.Constant(word, 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(word, 23)), ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def floats_at(typing: Any, address: Any) -> Any:
    """A pointer to float32 from an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.FloatType().as_pointer())

    return types.CPointer(types.float32)(types.int64), generate
