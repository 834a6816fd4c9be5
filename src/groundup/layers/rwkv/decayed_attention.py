"""Linear attention whose memory fades, feature by feature: RWKV-5 and 6 (Peng et al. 2024).

A head remembers a matrix S, N x M. Each token reads it, together with its own key and value weighted by a bonus u, and
then writes:

    y_t = r_t (S_{t-1} + diag(u) k_t^T v_t)
    S_t = diag(e^{w_t}) S_{t-1} + k_t^T v_t,        w_t <= 0

In parallel y_t is a sum over s < t of (sum_n r_tn k_sn e^{w_{s+1,n} + ... + w_{t-1,n}}) v_s. Dividing by decays, which
would make two matrices of it, overflows as soon as a decay is strong. Here nothing is divided: the text is halved,
again and again. For the pairs with t in the right and s in the left half of a piece of text,

    e^{w_{s+1} + ... + w_{t-1}} = e^{from s to the middle} e^{from the middle to t},        both factors <= 1

so that each piece is one matrix product, whatever the decays. Chunks of 64 tokens are done so; between them the matrix
S is carried.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.layers.rwkv.stream import NEVER, Stream, in_float32

CHUNK = 64


def decayed_attention(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, u: Tensor, state: Tensor | None, stream: Stream, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """See above.

    Args:
        r: (B, H, T, N).
        k: (B, H, T, N).
        w: (B or 1, H, T, N), logarithms of the decays, at most 0.
        v: (B, H, T, M).
        u: (H, N).
        state: (B, H, N, M), or None for nothing.
        stream: documents and padding.
        chunk: a power of 2.

    Returns:
        y (B, H, T, M) and the state after the last real token, both float32.
    """
    with in_float32(r):
        r, w, k, v = (x.float() for x in (r, w, k, v))
        own = (r * u.float()[:, None] * k).sum(-1, keepdim=True) * v  # r diag(u) k^T v
        reset = None
        if stream.starts is not None:
            reset = NEVER * stream.starts[:, None, :, None].to(w.dtype)  # (B, 1, T, 1)
        if stream.real is not None:
            real = stream.real[:, None, :, None]
            w, k = w * real, k * real
        if state is None:
            state = k.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1])
        num_tokens = r.shape[2]
        chunk = min(chunk, 1 << (num_tokens - 1).bit_length())
        behind = (0, 0, 0, -num_tokens % chunk)  # tokens without keys or decays behind the last
        r, w, k, v = (F.pad(x, behind).unflatten(2, (-1, chunk)) for x in (r, w, k, v))  # (B, H, chunks, C, N)
        reset = None if reset is None else F.pad(reset, behind).unflatten(2, (-1, chunk))
        y, from_start, to_end, total = _within(r, w, k, v, reset)
        added = (k * torch.exp(to_end)).mT @ v  # (B, H, chunks, N, M), what each chunk writes
        states, state = _carried(torch.exp(total).squeeze(3), added, state)
        y = y + (r * torch.exp(from_start)) @ states
    return y.flatten(2, 3)[:, :, :num_tokens] + own, state


def _carried(kept: Tensor, added: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The state before each chunk (B, H, chunks, N, M), and after the last."""
    states = []
    for keep, add in zip(kept.unsqueeze(-1).unbind(2), added.unbind(2), strict=True):
        states.append(state)
        state = keep * state + add
    return torch.stack(states, dim=2), state


def _within(r: Tensor, w: Tensor, k: Tensor, v: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Y from the pairs within each chunk, and three sums of w: from the chunk's start to before each token, from behind
    each token to the chunk's end, and over the whole chunk.

    A token that starts a document counts `reset` for all that stands before it.
    """
    before, after, total = torch.zeros_like(w), torch.zeros_like(w), w  # within pieces of one token
    if reset is not None:
        before, total = before + reset, total + reset
        after = torch.zeros_like(before)
    y, half, size = torch.zeros_like(v), 1, r.shape[3]
    while half < size:
        (before_left, before_right), (after_left, after_right) = _halves(before, half), _halves(after, half)
        (total_left, total_right), (y_left, y_right) = _halves(total, 1), _halves(y, half)
        readers = _halves(r, half)[1] * torch.exp(before_right)
        written = _halves(k, half)[0] * torch.exp(after_left)
        y = _joined(y_left, y_right + (readers @ written.mT) @ _halves(v, half)[0])
        before = _joined(before_left, before_right + total_left)
        after = _joined(after_left + total_right, after_right)
        total, half = total_left + total_right, 2 * half
        total = total.flatten(-3, -2)
    return y, before, after, total


def _halves(x: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """(..., C, N) -> the left and the right halves of its pieces, (..., pieces, half, N) each."""
    left, right = x.unflatten(-2, (-1, 2, half)).unbind(-3)
    return left, right


def _joined(left: Tensor, right: Tensor) -> Tensor:
    """Halves -> (..., C, N)."""
    return torch.stack((left, right), dim=-3).flatten(-4, -2)
