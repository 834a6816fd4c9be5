"""The generalised delta rule: RWKV-7 (Peng et al. 2025), a memory that can also be corrected.

A head remembers a matrix S, M x N, and each token decays it, changes what it holds in the direction a, adds its own key
and value, and reads:

    S_t = S_{t-1} (diag(e^{w_t}) + a_t^T b_t) + v_t^T k_t,      y_t = r_t S_t^T

with a = -kappa, a direction of unit length, and b = kappa * (in-context learning rate): what S holds for kappa is taken
away in part before the new value is written.

In parallel, chunk by chunk: with u_t = a_t S_{t-1}^T, what is found in the direction a, every S_t is a sum of decayed
v_s^T k_s and u_s^T b_s, and the u of a chunk solve a triangular system (the WY form of a product of Householder-like
matrices; Bischof & Van Loan 1985, Yang et al. 2024). With D_t the product of the chunk's decays up to t, and
A[x, y]_ts = (x_t D) (y_s / D_s)^T for earlier s:

    (I - A[a, b]) U = (a D) S_0^T + A[a, k] V
    Y = (r D) S_0^T + A[r, k] V + A[r, b] U
    S_C = (S_0 + V^T (k / D) + U^T (b / D)) diag(D_C)

1 / D is at most e^{32 * 0.607} in a chunk of 32 tokens because RWKV-7's decays are never below e^{-0.607}.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.layers.rwkv.stream import Stream, in_float32

CHUNK = 32
LOWEST = -0.6065306597126334
"""-e^{-1/2}: the lowest logarithm of a decay in RWKV-7."""


class Delta(NamedTuple):
    """The five vectors of each token, all (B, H, T, N): the logarithms of the decays, and r, k, a and b."""

    r: Tensor
    w: Tensor
    k: Tensor
    a: Tensor
    b: Tensor


def delta_rule(x: Delta, v: Tensor, state: Tensor | None, stream: Stream, chunk: int = CHUNK) -> tuple[Tensor, Tensor]:
    """See above.

    Args:
        x: the vectors; w between `LOWEST` and 0.
        v: (B, H, T, M).
        state: (B, H, N, M), S transposed, or None for nothing.
        stream: documents and padding.
        chunk: tokens done at once.

    Returns:
        y (B, H, T, M) and the state after the last real token, both float32.
    """
    with in_float32(v):
        v, x = v.float(), Delta(*(part.float() for part in x))
        if stream.real is not None:
            real = stream.real[:, None, :, None]
            x = x._replace(w=x.w * real, k=x.k * real, a=x.a * real)
        if state is None:
            state = v.new_zeros(*v.shape[:2], x.k.shape[-1], v.shape[-1])
        num_tokens = v.shape[2]
        if num_tokens == 1:
            return _step(Delta(*(part.squeeze(2) for part in x)), v, state)
        chunk = min(chunk, num_tokens)
        v, *parts = (F.pad(p, (0, 0, 0, -num_tokens % chunk)).unflatten(2, (-1, chunk)) for p in (v, *x))
        same = None if stream.starts is None else _documents(stream.starts, num_tokens, chunk)
        y, state = _chunks(Delta(*parts), v, state, same)  # (B, H, chunks, C, M)
    return y.flatten(2, 3)[:, :, :num_tokens], state


def _step(x: Delta, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token, as the recurrence says. x (B, H, N), v (B, H, 1, M)"""
    found = x.a[:, :, None] @ state  # (B, H, 1, M)
    state = torch.exp(x.w)[..., None] * state + x.b[..., None] * found + x.k[..., None] * v
    return x.r[:, :, None] @ state, state


class _Same(NamedTuple):
    """Which tokens share a document, as factors 0 and 1.

    Attributes:
        pairs: (B, 1, chunks, C, C), of a chunk.
        first: (B, 1, chunks, C, 1), with the token before the chunk.
        last: (B, 1, chunks, C, 1), with the chunk's last token.
        whole: (B, 1, chunks, 1, 1), the last token with the one before the chunk.
    """

    pairs: Tensor
    first: Tensor
    last: Tensor
    whole: Tensor


def _documents(starts: Tensor, num_tokens: int, chunk: int) -> _Same:
    number = F.pad(starts.long().cumsum(1), (0, -num_tokens % chunk), value=-1)  # (B, T) -> (B, 1, chunks, C, 1)
    number = number.unflatten(1, (-1, chunk))[:, None, :, :, None]
    before = F.pad(number[:, :, :-1, -1:], (0, 0, 0, 0, 1, 0))
    last = number[:, :, :, -1:]
    pairs = (number == number.mT, number == before, number == last, last == before)
    return _Same(*(pair.float() for pair in pairs))


def _chunks(x: Delta, v: Tensor, state: Tensor, same: _Same | None) -> tuple[Tensor, Tensor]:
    """All parts (B, H, chunks, C, ...)."""
    upto = x.w.cumsum(3)  # log D_t
    end = upto[..., -1:, :]
    a, r = x.a * torch.exp(upto - x.w), x.r * torch.exp(upto)  # a D_{t-1}, r D_t
    over = torch.exp(-upto)
    keys = torch.cat((x.k * over, x.b * over), dim=3)  # k / D and b / D, (B, H, chunks, 2 C, N)
    size = v.shape[3]
    a_k, a_b = (a @ keys.mT).split(size, dim=-1)
    r_k, r_b = (r @ keys.mT).split(size, dim=-1)
    a_k, a_b, r_k, r_b = a_k.tril(-1), a_b.tril(-1), r_k.tril(), r_b.tril()
    left = torch.exp(end - upto)  # D_C / D_s
    k_end, b_end, kept = x.k * left, x.b * left, torch.exp(end)
    if same is not None:
        a_k, a_b, r_k, r_b = (scores * same.pairs for scores in (a_k, a_b, r_k, r_b))
        a, r, k_end, b_end = a * same.first, r * same.first, k_end * same.last, b_end * same.last
        kept = kept * same.whole
    # U = found S_0 + own, from (I - A[a, b]) (found, own) = (a D, A[a, k] V)
    right = torch.cat((a, a_k @ v), dim=-1)
    eye = torch.eye(size, device=v.device)
    solved = torch.linalg.solve_triangular(eye - a_b, right, upper=False, unitriangular=True)
    found, own = solved.split((a.shape[-1], v.shape[-1]), dim=-1)
    # S_C = (diag(D_C) + b_end^T found) S_0 + k_end^T V + b_end^T own, with S transposed
    turn = torch.diag_embed(kept.squeeze(3)) + b_end.mT @ found  # (B, H, chunks, N, N)
    added = k_end.mT @ v + b_end.mT @ own
    states = []
    for matrix, add in zip(turn.unbind(2), added.unbind(2), strict=True):
        states.append(state)
        state = matrix @ state + add
    before = torch.stack(states, dim=2)  # (B, H, chunks, N, M)
    return r @ before + r_k @ v + r_b @ (found @ before + own), state
