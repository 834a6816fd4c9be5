"""One more token a row through multi-head attention with a cache."""

from typing import Any

import numba
import numpy as np

from groundup.generation.few_rows.kernels.numbers import (
    MATHEMATICS,
    NOTHING,
    add_bias,
    exponential,
    hyperbolic_tangent,
    normalise,
)
from groundup.generation.few_rows.kernels.products import FEWEST_FOR_THREADS, matrix, multiply, multiply_all
from groundup.generation.few_rows.kernels.vectors import floats_at
from groundup.generation.few_rows.kinds import ALL_HEADS


@numba.njit(**MATHEMATICS)
def rotate(x: Any, cosines: Any, sines: Any, interleaved: Any) -> None:
    """The rotary embedding of one head, in place; features beyond twice the table's width stay."""
    half = cosines.shape[0]
    if interleaved:
        for i in range(half):
            a, b = x[2 * i], x[2 * i + 1]
            x[2 * i] = a * cosines[i] - b * sines[i]
            x[2 * i + 1] = b * cosines[i] + a * sines[i]
    else:
        for i in range(half):
            a, b = x[i], x[half + i]
            x[i] = a * cosines[i] - b * sines[i]
            x[half + i] = b * cosines[i] + a * sines[i]


@numba.njit(**MATHEMATICS)
def attend_one(
    q: Any, keys: Any, values: Any, first: Any, slot: Any, size: Any, form: Any, slope: Any, sink: Any, scores: Any
) -> None:
    """Put softmax(scores of the keys in slots first .. slot) values in the place of q (d,).

    Args:
        q: one head's query.
        keys: (S, d); slot s lies at place s mod size.
        values: the same.
        first: the first slot that is seen.
        slot: the last one.
        size: of the ring.
        form: (scale, cap): factor of the scores, and their soft cap or 0.
        slope: what a token of distance takes from a score.
        sink: a score without a value, or minus infinity.
        scores: (S,), room.
    """
    scale, cap = form
    best, place = sink, first % size
    for j in range(slot + 1 - first):
        score = NOTHING
        for i in range(q.shape[0]):
            score += q[i] * keys[place, i]
        score *= scale
        if cap > 0:
            score = cap * hyperbolic_tangent(score / cap)
        scores[j] = score - slope * np.float32(slot - first - j)
        best = max(best, scores[j])
        place = place + 1 if place + 1 < size else 0
    total = exponential(sink - best) if sink > -np.inf else NOTHING
    for j in range(slot + 1 - first):
        scores[j] = exponential(scores[j] - best)
        total += scores[j]
    for i in range(q.shape[0]):
        q[i] = NOTHING
    place = first % size
    for j in range(slot + 1 - first):
        share = scores[j] / total
        for i in range(q.shape[0]):
            q[i] += share * values[place, i]
        place = place + 1 if place + 1 < size else 0


@numba.njit(**MATHEMATICS)
def attend_group(
    task: Any, q: Any, k: Any, v: Any, turned: Any, interleaved: Any, slots: Any, cache: Any, seen: Any, form: Any,
    heads: Any, scores: Any,
) -> None:  # fmt: skip
    """`attend` for the heads of one row that share a key head."""
    (cosines, sines), (keys, values), (window, size) = turned, cache, seen
    slopes, sinks = numba.carray(floats_at(heads[0]), q.shape[1]), numba.carray(floats_at(heads[1]), q.shape[1])  # type: ignore[call-arg]
    kv_heads = k.shape[1]
    shared = q.shape[1] // kv_heads
    b, g = task // kv_heads, task % kv_heads
    row, slot = min(b, cosines.shape[0] - 1), slots[min(b, slots.shape[0] - 1)]
    rotate(k[b, g], cosines[row], sines[row], interleaved)
    place = slot % size
    for i in range(k.shape[2]):
        keys[b, g, place, i] = k[b, g, i]
        values[b, g, place, i] = v[b, g, i]
    first = max(0, slot + 1 - window) if window > 0 else 0
    for head in range(g * shared, (g + 1) * shared):
        rotate(q[b, head], cosines[row], sines[row], interleaved)
        slope = slopes[head] if heads[0] != 0 else NOTHING
        sink = sinks[head] if heads[1] != 0 else np.float32(-np.inf)
        attend_one(q[b, head], keys[b, g], values[b, g], first, slot, size, form, slope, sink, scores[b, head])


@numba.njit(parallel=True, **MATHEMATICS)
def attend(
    q: Any, k: Any, v: Any, turned: Any, interleaved: Any, slots: Any, cache: Any, seen: Any, form: Any, heads: Any,
    scores: Any,
) -> None:  # fmt: skip
    """Rotate q and k, keep k and v, and put each head's result in the place of q.

    Args:
        q: (B, H, d).
        k: (B, K, d).
        v: (B, K, d).
        turned: cosines and sines, (B or 1, rotated / 2) each.
        interleaved: the layout of the rotated pairs.
        slots: (B or 1,).
        cache: keys and values, (B, K, S, d) each.
        seen: (window or 0, size of the ring).
        form: (scale, cap).
        heads: addresses of the heads' slopes and sinks, 0 for none.
        scores: (B, H, S), room.
    """
    tasks, work = q.shape[0] * k.shape[1], 2 * q.size * (slots.max() + 1)
    if work < FEWEST_FOR_THREADS:
        for task in range(tasks):
            attend_group(task, q, k, v, turned, interleaved, slots, cache, seen, form, heads, scores)
    else:
        for task in numba.prange(tasks):
            attend_group(task, q, k, v, turned, interleaved, slots, cache, seen, form, heads, scores)


@numba.njit(cache=True)
def attention_step(
    weights: Any,
    norms: Any,
    shape: Any,
    form: Any,
    heads: Any,
    x: Any,
    out: Any,
    turned: Any,
    slots: Any,
    cache: Any,
    size: Any,
    like: Any,
) -> None:
    """Attention of one token a row, x (B, D) -> out (B, D).

    Args:
        weights: addresses of the weights of q, k, v, o, and of their biases.
        norms: (kind, over what, eps) of the norm of queries and keys, and addresses of their weights and biases.
        shape: (H, K, d, interleaved, window or 0).
        form: (scale, cap or 0) of the scores.
        heads: addresses of the heads' slopes and sinks.
        x: what comes in, float32.
        out: where the result goes.
        turned: cosines and sines, (B or 1, rotated / 2) each.
        slots: (B or 1,) int64, where in its row of the cache each token goes; it sees that slot and those before.
        cache: keys and values, (B, K, S, d) each.
        size: slot s lies at place s mod size.
        like: see the package.
    """
    rows, width = x.shape
    num_heads, kv_heads, d, interleaved, window = shape
    (wq, wk, wv, wo), (bq, bk, bv, bo) = weights
    q = np.empty((rows, num_heads, d), np.float32)
    k = np.empty((rows, kv_heads, d), np.float32)
    v = np.empty((rows, kv_heads, d), np.float32)
    scores = np.empty((rows, num_heads, cache[0].shape[2]), np.float32)

    small = kv_heads * d
    of_q = matrix(wq, q.ctypes.data, num_heads * d)
    of_k, of_v = matrix(wk, k.ctypes.data, small), matrix(wv, v.ctypes.data, small)
    multiply_all(of_q + of_k + of_v, x.ctypes.data, rows, width, like)
    flat_q, flat_k = q.reshape(rows, num_heads * d), k.reshape(rows, kv_heads * d)
    add_bias(flat_q, bq)
    add_bias(flat_k, bk)
    add_bias(v.reshape(rows, kv_heads * d), bv)

    (kind, over, eps), (q_weight, q_bias, k_weight, k_bias) = norms
    if kind != 0 and over == ALL_HEADS:
        normalise(kind, q_weight, q_bias, eps, flat_q, flat_q)
        normalise(kind, k_weight, k_bias, eps, flat_k, flat_k)
    elif kind != 0:
        single_q, single_k = q.reshape(rows * num_heads, d), k.reshape(rows * kv_heads, d)
        normalise(kind, q_weight, q_bias, eps, single_q, single_q)
        normalise(kind, k_weight, k_bias, eps, single_k, single_k)

    attend(q, k, v, turned, interleaved, slots, cache, (window, size), form, heads, scores)
    multiply(wo, q.ctypes.data, out.ctypes.data, width, rows, num_heads * d, like)
    add_bias(out, bo)
