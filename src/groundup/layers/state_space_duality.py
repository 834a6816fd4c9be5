"""State space duality (Dao & Gu 2024, Mamba-2): one recurrence, and the same as a matrix over tokens.

Each of H heads remembers a matrix S, P x N, which fades by one number a token. With a_t <= 0 the logarithm of that
decay, x_t the head's P inputs, and b_t, c_t (N) shared by the heads of a group,

    S_t = e^{a_t} S_{t-1} + x_t b_t^T        y_t = S_t c_t

Written out, y = (L * C B^T) X: attention without softmax whose scores are weighted by

    L[t, s] = e^{a_{s+1} + ... + a_t} for s <= t, else 0

The text is cut into chunks of Q tokens. Within a chunk the matrix form is computed, T Q in all; from chunk to chunk the
state is carried, T / Q steps. Nothing is divided by products of decays, which would overflow as soon as one is strong.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.layers.activations import Activation
from groundup.layers.causal_conv import CausalConv, Memory, in_reading_order
from groundup.layers.context import Context
from groundup.layers.norms import GatedRMSNorm
from groundup.layers.rwkv.stream import in_float32

CHUNK = 64
"""Q."""

LEAST = -64.0
"""Logarithms of decays are cut off here: e^-64 of the past is nothing in float32."""

GRID = 4096.0
"""Sums over 64 tokens of multiples of 1 / GRID down to LEAST are exact in float32: 64 * 64 * 4096 = 2^24."""


class StateSpaceDuality(nn.Module):
    """Mamba-2's mixer: (B, T, D) -> (B, T, D). Its state is (B, H, P, N) and the last inputs of the convolution.

        z, u, dt = W_in x              widths H P, H P + 2 G N and H
        x, b, c  = act(conv(u))
        Δ        = softplus(dt + dt_bias), within its limits
        y        = the duality above of Δ x and a = -Δ e^{A_log}, + D x
        out      = W_out norm(y, z)

    Args:
        dim: D.
        heads: H.
        head_dim: P.
        state: N.
        groups: G; b and c are shared by H / G heads, and the norm has as many parts.
        kernel: tokens that the convolution sees, the present one included.
        limits: the least and the largest time step; None for no largest.
        eps: of the norm.
        act: after the convolution.
        bias: on the projections in and out.
        conv_bias: on the convolution.
    """

    path: str = ""

    def __init__(
        self,
        dim: int,
        heads: int,
        head_dim: int,
        state: int,
        groups: int = 1,
        kernel: int = 4,
        *,
        limits: tuple[float, float | None] = (0.0, None),
        eps: float = 1e-5,
        act: Activation = F.silu,
        bias: bool = False,
        conv_bias: bool = True,
    ):
        super().__init__()
        inner, shared = heads * head_dim, 2 * groups * state
        self.widths = (inner, inner + shared, heads)
        self.heads, self.groups, self.limits, self.act = heads, groups, limits, act
        self.in_proj = nn.Linear(dim, sum(self.widths), bias)
        self.conv1d = CausalConv(inner + shared, kernel, bias=conv_bias)
        self.dt_bias = nn.Parameter(torch.empty(heads))
        self.A_log = nn.Parameter(torch.empty(heads))
        self.D = nn.Parameter(torch.empty(heads))
        self.norm = GatedRMSNorm(inner, eps, groups)
        self.out_proj = nn.Linear(inner, dim, bias)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        memory = None if context.state is None else context.state.layers[self.path].tensors  # type: ignore[attr-defined]
        return in_reading_order(x, context, memory, self.mix)

    def mix(self, x: Tensor, documents: Tensor | None, memory: Memory | None) -> Tensor:
        """X (B, T, D); documents (B, T) or None. With a memory each row is one document, padded on the left, which goes
        on from it; its entries are replaced.
        """
        gate, channels, dt = self.in_proj(x).split(self.widths, dim=-1)
        real = None if documents is None else (documents != 0)[:, :, None]  # (B, T, 1)
        if real is not None:
            channels = torch.where(real, channels, 0)
        channels = self.act(self.conv1d(channels, documents, memory))
        step = F.softplus((dt + self.dt_bias).float())  # (B, T, H)
        if self.limits != (0.0, None):
            step = step.clamp(*self.limits)
        if real is not None:
            step = step * real  # padding leaves the state as it is
        y = self.remember(channels, step, documents, memory)
        return self.out_proj(self.norm(y, gate))

    def remember(self, channels: Tensor, step: Tensor, documents: Tensor | None, memory: Memory | None) -> Tensor:
        """Channels (B, T, H P + 2 G N) and time steps (B, T, H) -> what the heads read, (B, T, H P)."""
        with in_float32(channels):
            inner, shared = self.widths[0], (self.widths[1] - self.widths[0]) // 2
            x, b, c = channels.float().split((inner, shared, shared), dim=-1)
            x = x.unflatten(-1, (self.heads, -1))  # (B, T, H, P)
            b, c = (part.unflatten(-1, (self.groups, -1)) for part in (b, c))  # (B, T, G, N)
            decay, inflow = step * -self.A_log.float().exp(), x * step[..., None]
            state = None if memory is None else memory.get("matrix")
            if x.shape[1] == 1:
                y, state = recurrent(inflow, decay, b, c, state)
            else:
                y, state = chunked(inflow, decay, b, c, state, None if memory is not None else documents)
            if memory is not None:
                memory["matrix"] = state
            return (y + self.D.float()[:, None] * x).flatten(2)


def recurrent(x: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """One token after another, as defined: x (B, T, H, P), a (B, T, H), b and c (B, T, G, N), state (B, H, P, N) or
    None for nothing -> y (B, T, H, P) and the state after the last token.
    """
    groups, outputs = b.shape[2], []
    state = x.new_zeros(*x.shape[:1], *x.shape[2:], b.shape[-1]) if state is None else state
    state = state.unflatten(1, (groups, -1))  # (B, G, H / G, P, N)
    x, a = x.unflatten(2, (groups, -1)), a.exp().unflatten(2, (groups, -1))
    for t in range(x.shape[1]):
        state = (a[:, t, ..., None, None] * state).addcmul_(x[:, t, ..., None], b[:, t, :, None, None])
        outputs.append((state.flatten(2, 3) @ c[:, t, ..., None]).flatten(1))
    y = torch.stack(outputs, dim=1) if len(outputs) > 1 else outputs[0][:, None]
    return y.unflatten(2, (x.shape[2] * x.shape[3], -1)), state.flatten(1, 2)


def chunked(
    x: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    state: Tensor | None,
    documents: Tensor | None = None,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """The same in matrices, chunk by chunk. documents (B, T): each run of equal numbers begins with nothing before it.

    Args:
        x: (B, T, H, P).
        a: (B, T, H), at most 0.
        b: (B, T, G, N).
        c: (B, T, G, N).
        state: (B, H, P, N), or None for nothing.
        documents: see above; None where each row is one.
        chunk: at most 64, see GRID.

    Returns:
        y (B, T, H, P) and the state after the last token, float32.
    """
    length, groups = x.shape[1], b.shape[2]
    chunk = min(chunk, length)
    x, a, b, c = (_cut(part, chunk) for part in (x, a, b, c))  # (B, chunks, Q, ...)
    runs = None if documents is None else _cut(_runs(documents), chunk, repeat=True)  # (B, chunks, Q)
    weights, from_start, to_end = _decays(a, runs)

    # Heads of a group stand side by side, so that one product serves them: R = H / G of them, R P columns.
    scores = c.transpose(2, 3) @ b.permute(0, 1, 3, 4, 2)  # (B, chunks, G, Q, Q)
    mixed = scores[:, :, :, None] * weights.unflatten(2, (groups, -1))  # (B, chunks, G, R, Q, Q)
    y = (mixed.flatten(2, 3) @ x.transpose(2, 3)).transpose(2, 3)  # (B, chunks, Q, H, P)

    written = (x * to_end[..., None]).unflatten(3, (groups, -1)).flatten(4)  # (B, chunks, Q, G, R P)
    added = written.permute(0, 1, 3, 4, 2) @ b.transpose(2, 3)  # (B, chunks, G, R P, N)
    kept = from_start[:, :, -1]  # (B, chunks, H)
    before, state = _carried(kept, added.flatten(2, 3).unflatten(2, (kept.shape[2], -1)), state)

    memories = before.flatten(2, 3).unflatten(2, (groups, -1))  # (B, chunks, G, R P, N)
    read = (c.transpose(2, 3) @ memories.mT).transpose(2, 3).flatten(3)  # (B, chunks, Q, H P)
    y = y + read.unflatten(3, (kept.shape[2], -1)) * from_start[..., None]
    return y.flatten(1, 2)[:, :length], state


def _cut(x: Tensor, chunk: int, *, repeat: bool = False) -> Tensor:
    """(B, T, ...) -> (B, chunks, Q, ...), with zeros behind the last token, or with the last one again."""
    missing = -x.shape[1] % chunk
    if missing:
        end = x[:, -1:].expand(-1, missing, *x.shape[2:])
        x = torch.cat((x, end if repeat else torch.zeros_like(end)), dim=1)
    return x.unflatten(1, (-1, chunk))


def _runs(documents: Tensor) -> Tensor:
    """The number, from 0, of each token's run of equal numbers, (B, T) int64."""
    return F.pad(documents[:, 1:] != documents[:, :-1], (1, 0)).cumsum(1)


def _decays(a: Tensor, runs: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """What is left of each token at each later one, of the state before the chunk at each token, and of each token at
    the chunk's end: a (B, chunks, Q, H) -> (B, chunks, H, Q, Q), (B, chunks, Q, H), (B, chunks, Q, H)

    All three are e^(a difference of running sums). After a strong decay that would be a difference of two large
    numbers, which loses the small ones. So a is split: multiples of 1 / GRID, whose sums are exact, and small rests.
    """
    a = a.clamp(min=LEAST)
    coarse = (a.detach() * GRID).round() / GRID
    sums = [part.mT.cumsum(-1) for part in (coarse, a - coarse)]  # (B, chunks, H, Q)
    differences = [total[..., :, None] - total[..., None, :] for total in sums]
    allowed = torch.ones(a.shape[2], a.shape[2], dtype=torch.bool, device=a.device).tril()
    from_start, to_end = (sums[0] + sums[1]).exp(), differences[0][..., -1, :] + differences[1][..., -1, :]
    if runs is not None:
        same = runs[..., :, None] == runs[..., None, :]  # (B, chunks, Q, Q)
        allowed = (allowed & same)[:, :, None]
        begun = F.pad(runs[:, :-1, -1:], (0, 0, 1, 0)) != runs  # (B, chunks, Q): a document began in this chunk
        from_start = from_start.masked_fill(begun[:, :, None], 0)
        to_end = to_end.masked_fill(~same[:, :, None, -1], -torch.inf)
    weights = torch.where(allowed, differences[0] + differences[1], -torch.inf).exp()
    return weights, from_start.mT, to_end.exp().mT


def _carried(kept: Tensor, added: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """The state before each chunk, (B, chunks, H, P, N), and after the last: kept (B, chunks, H), added (B, chunks, H,
    P, N), state (B, H, P, N) or None.
    """
    states = []
    state = torch.zeros_like(added[:, 0]) if state is None else state
    for keep, add in zip(kept.unbind(1), added.unbind(1), strict=True):
        states.append(state)
        state = torch.addcmul(add, keep[..., None, None], state)
    return torch.stack(states, dim=1), state
