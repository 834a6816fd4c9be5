"""One token a row through a feed-forward network, or through the experts that were chosen for it."""

from typing import Any

import numba
import numpy as np

from groundup.generation.few_rows.kernels.forms import in_blocks, row_bytes
from groundup.generation.few_rows.kernels.numbers import (
    MATHEMATICS,
    NOTHING,
    ONE,
    activate,
    add_bias,
    exponential,
)
from groundup.generation.few_rows.kernels.products import (
    FEWEST_FOR_THREADS,
    TILE_ROWS,
    inputs_for,
    matrix,
    multiply,
    multiply_all,
    row_of_inputs,
    single,
)
from groundup.generation.few_rows.kernels.vectors import floats_at


@numba.njit(**MATHEMATICS)
def gated(kind: Any, gate: Any, up: Any) -> None:
    """Put act(gate) * up in the place of gate (B, F)."""
    for b in range(gate.shape[0]):
        activate(kind, gate[b])
        for i in range(gate.shape[1]):
            gate[b, i] *= up[b, i]


@numba.njit(cache=True)
def mlp_step(weights: Any, kind: Any, hidden: Any, x: Any, out: Any, like: Any) -> None:
    """down(act(gate(x)) * up(x)), or down(act(up(x))) where gate is 0: x (B, D) -> out (B, D).

    Args:
        weights: addresses of gate, up and down, and of their biases.
        kind: of the activation.
        hidden: F.
        x: what comes in, float32.
        out: where the result goes.
        like: see the package.
    """
    rows, width = x.shape
    (w_gate, w_up, w_down), (b_gate, b_up, b_down) = weights
    inner = np.empty((rows, hidden), np.float32)
    if w_gate == 0:
        multiply(w_up, x.ctypes.data, inner.ctypes.data, hidden, rows, width, like)
        add_bias(inner, b_up)
        for b in range(rows):
            activate(kind, inner[b])
    else:
        up = np.empty((rows, hidden), np.float32)
        matrices = matrix(w_gate, inner.ctypes.data, hidden) + matrix(w_up, up.ctypes.data, hidden)
        multiply_all(matrices, x.ctypes.data, rows, width, like)
        add_bias(inner, b_gate)
        add_bias(up, b_up)
        gated(kind, inner, up)
    multiply(w_down, inner.ctypes.data, out.ctypes.data, width, rows, hidden, like)
    add_bias(out, b_down)


@numba.njit(cache=True)
def multiply_choice(task: Any, w: Any, x: Any, inputs: Any, source: Any, experts: Any, y: Any, like: Any) -> None:
    """`multiply_chosen` for one choice and `TILE_ROWS` rows of its matrix."""
    n, k = y.shape[1], x.shape[1]
    first = inputs.ctypes.data if in_blocks(like) else x.ctypes.data  # type: ignore[call-arg]
    groups = (n + TILE_ROWS - 1) // TILE_ROWS
    m, group = task // groups, task % groups
    size = row_bytes(k, like)  # type: ignore[call-arg]
    weights, row = w + experts[m] * n * size, first + source[m] * row_of_inputs(k, like)  # type: ignore[call-arg]
    for i in range(group * TILE_ROWS, min(n, (group + 1) * TILE_ROWS)):
        single(weights + i * size, row, y.ctypes.data + 4 * (m * n + i), n, k, like)


@numba.njit(parallel=True, cache=True)
def multiply_chosen(w: Any, bias: Any, x: Any, source: Any, experts: Any, y: Any, like: Any) -> None:
    """y[m] = W_e x[source[m]] + bias_e with e = experts[m], for matrices that lie one after another.

    Args:
        w: address of W (E, N, K).
        bias: address of (E, N), or 0.
        x: (B, K) float32.
        source: (M,) int64.
        experts: (M,) int64, each below E.
        y: (M, N) float32.
        like: see the package.
    """
    n, k = y.shape[1], x.shape[1]
    tasks = len(experts) * ((n + TILE_ROWS - 1) // TILE_ROWS)
    inputs = inputs_for(x.ctypes.data, len(x), k, like)
    if len(experts) * n * k < FEWEST_FOR_THREADS:
        for task in range(tasks):
            multiply_choice(task, w, x, inputs, source, experts, y, like)
    else:
        for task in numba.prange(tasks):
            multiply_choice(task, w, x, inputs, source, experts, y, like)
    if bias != 0:
        for m in range(len(experts)):
            numbers = numba.carray(floats_at(bias + 4 * experts[m] * n), n)  # type: ignore[call-arg]
            for i in range(n):
                y[m, i] += numbers[i]


@numba.njit(**MATHEMATICS)
def clamped(gate: Any, up: Any, alpha: Any, limit: Any) -> None:
    """Put g sigmoid(alpha g) (u + 1) in the place of gate (M, F), with g and u clamped (gpt-oss)."""
    for m in range(gate.shape[0]):
        for i in range(gate.shape[1]):
            g = limit if gate[m, i] > limit else gate[m, i]
            u = limit if up[m, i] > limit else (-limit if up[m, i] < -limit else up[m, i])
            gate[m, i] = g / (ONE + exponential(-alpha * g)) * (u + ONE)


@numba.njit(**MATHEMATICS)
def weighted_sum(y: Any, source: Any, weights: Any, out: Any) -> None:
    """out[b] = sum of weights[m] y[m] over the m with source[m] = b."""
    for b in range(out.shape[0]):
        for i in range(out.shape[1]):
            out[b, i] = NOTHING
    for m in range(y.shape[0]):
        for i in range(out.shape[1]):
            out[source[m], i] += weights[m] * y[m, i]


@numba.njit(cache=True)
def experts_step(
    weights: Any,
    kind: Any,
    hidden: Any,
    clamp: Any,
    x: Any,
    source: Any,
    experts: Any,
    shares: Any,
    out: Any,
    like: Any,
) -> None:
    """The experts of each token, x (B, D) -> out (B, D).

    Args:
        weights: addresses of all experts' gate (0: ungated), up and down, and of their biases.
        kind: of the activation.
        hidden: F.
        clamp: (alpha, limit) of gpt-oss's experts; a limit of 0 for none.
        x: what comes in, float32.
        source: (M,) int64, the token of each choice.
        experts: (M,) int64, the expert of each choice.
        shares: (M,) float32, what its result is multiplied by.
        out: where the result goes.
        like: see the package.
    """
    (w_gate, w_up, w_down), (b_gate, b_up, b_down) = weights
    chosen = len(experts)
    inner, y = np.empty((chosen, hidden), np.float32), np.empty((chosen, x.shape[1]), np.float32)
    if w_gate == 0:
        multiply_chosen(w_up, b_up, x, source, experts, inner, like)
        for m in range(chosen):
            activate(kind, inner[m])
    else:
        up = np.empty((chosen, hidden), np.float32)
        multiply_chosen(w_gate, b_gate, x, source, experts, inner, like)
        multiply_chosen(w_up, b_up, x, source, experts, up, like)
        if clamp[1] > 0:
            clamped(inner, up, clamp[0], clamp[1])
        else:
            gated(kind, inner, up)
    multiply_chosen(w_down, b_down, inner, np.arange(chosen), experts, y, like)
    weighted_sum(y, source, shares, out)
