"""Selective state spaces (Gu & Dao 2023, Mamba): a linear recurrence whose gates follow the input.

Each of E channels has N numbers of state. With x_t the channel's input after a short convolution, and Δ_t, B_t, C_t
linear in x_t,

    h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t x_t        y_t = C_t h_t + D x_t        A = -exp(A_log)

The recurrence is linear in h, so prefixes can be joined in any order: on a GPU log2(T) doublings instead of T steps.
"""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from groundup.layers.activations import Activation
from groundup.layers.causal_conv import CausalConv, Memory, in_reading_order
from groundup.layers.context import Context
from groundup.layers.rwkv.stream import in_float32

CHUNK = 64
"""Tokens whose states exist at one time, (B, CHUNK, E, N)."""


class SelectiveSSM(nn.Module):
    """Mamba's mixer: (B, T, D) -> (B, T, D). Its state is (B, E, N) and the last inputs of the convolution.

    Args:
        dim: D.
        inner: E.
        state: N.
        rank: width of the bottleneck through which Δ is made.
        kernel: tokens that the convolution sees, the present one included.
        act: after the convolution, and of the gate.
        bias: on the projections in and out.
        conv_bias: on the convolution.
    """

    path: str = ""
    compiles: ClassVar[bool] = False
    """Token by token, a compiled graph would be as long as the text."""

    def __init__(
        self,
        dim: int,
        inner: int,
        state: int,
        rank: int,
        kernel: int = 4,
        *,
        act: Activation = F.silu,
        bias: bool = False,
        conv_bias: bool = True,
    ):
        super().__init__()
        self.in_proj = nn.Linear(dim, 2 * inner, bias)
        self.conv1d = CausalConv(inner, kernel, bias=conv_bias)
        self.x_proj = nn.Linear(inner, rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.empty(inner, state))
        self.D = nn.Parameter(torch.empty(inner))
        self.out_proj = nn.Linear(inner, dim, bias)
        self.rank, self.state, self.act = rank, state, act

    def forward(self, x: Tensor, context: Context) -> Tensor:
        memory = None if context.state is None else context.state.layers[self.path].tensors  # type: ignore[attr-defined]
        return in_reading_order(x, context, memory, self.mix)

    def mix(self, x: Tensor, documents: Tensor | None, memory: Memory | None) -> Tensor:
        """X (B, T, D); documents (B, T) or None. With a memory each row is one document, padded on the left, which goes
        on from it; it is updated in place.
        """
        channels, gate = self.in_proj(x).chunk(2, dim=-1)  # (B, T, E) each
        if documents is not None:
            channels = torch.where((documents != 0)[:, :, None], channels, 0)
        channels = self.act(self.conv1d(channels, documents, memory))
        rank, b, c = self.x_proj(channels).split((self.rank, self.state, self.state), dim=-1)
        dt = F.softplus(self.dt_proj(rank).float())  # (B, T, E)
        keeps, past = None, None if memory is None else memory.get("h")
        if documents is not None and memory is not None:
            dt = dt * (documents != 0)[:, :, None]  # padding leaves the state as it is
        elif documents is not None:
            keeps = F.pad((documents[:, 1:] == documents[:, :-1]).to(dt.dtype), (1, 0))  # documents begin anew
        with in_float32(x):
            inputs = (channels.float(), dt, -self.A_log.float().exp(), b.float(), c.float())
            y, h = step(*inputs, past) if x.shape[1] == 1 else selective_scan(*inputs, past, keeps)
        if memory is not None:
            memory["h"] = h
        y = y + self.D.float() * channels.float()
        return self.out_proj(y.to(x.dtype) * self.act(gate))


def step(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, h: Tensor | None) -> tuple[Tensor, Tensor]:
    """`selective_scan` of one token."""
    inflow = (dt * x)[:, 0, :, None]
    h = inflow * b if h is None else ((dt[:, 0, :, None] * a).exp() * h).addcmul_(inflow, b)  # (B, E, N)
    return (h @ c.mT).mT, h


def selective_scan(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, h: Tensor | None, keeps: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The recurrence over a text.

    States are made chunk by chunk, and again in the backward pass, so that only those between chunks are kept: memory
    is that of the inputs and CHUNK tokens' states.

    Args:
        x: (B, T, E).
        dt: (B, T, E), Δ.
        a: (E, N), A.
        b: (B, T, N).
        c: (B, T, N).
        h: (B, E, N), the state before, or None for nothing.
        keeps: (B, T), 0 where a token forgets all that was before it, else 1; or None.

    Returns:
        y (B, T, E), without D x, and the state after the last token, (B, E, N).
    """
    h = x.new_zeros(len(x), *a.shape) if h is None else h
    return _SelectiveScan.apply(x, dt, a, b, c, h, keeps)  # type: ignore[return-value]


class _SelectiveScan(torch.autograd.Function):
    # Inside, tokens come first, (T, B, ...), so that those of a chunk, and each one, lie together in memory.

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor | None) -> tuple[Tensor, Tensor]:
        *by_row, h = inputs[:6]
        x, dt, b, c = (t.transpose(0, 1).contiguous() for t in (by_row[0], by_row[1], by_row[3], by_row[4]))  # type: ignore[union-attr]
        a, keeps = by_row[2], None if inputs[6] is None else inputs[6].T
        assert a is not None
        assert h is not None
        begins, outputs = [], []
        for part in _chunks(len(x)):
            begins.append(h)
            states, _ = _states(x[part], dt[part], a, b[part], h, None if keeps is None else keeps[part])
            outputs.append((states @ c[part, :, :, None]).squeeze(-1))
            h = states[-1].clone()
        ctx.save_for_backward(x, dt, a, b, c, keeps, *begins)
        return torch.cat(outputs).transpose(0, 1), h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, dt, a, b, c, keeps, *begins = ctx.saved_tensors
        gy, gh = gradients[0].transpose(0, 1), gradients[1]
        gx, gdt, gb, gc, ga = (torch.empty_like(x), torch.empty_like(dt), *(torch.empty_like(t) for t in (b, c)), 0)
        for part, begin in reversed(list(zip(_chunks(len(x)), begins, strict=True))):
            keep = None if keeps is None else keeps[part]
            states, decay = _states(x[part], dt[part], a, b[part], begin, keep)
            gc[part] = (gy[part, :, None] @ states).squeeze(2)
            gs = gy[part, :, :, None] * c[part, :, None]  # of the states: what their outputs ask for ...
            gs[-1] += gh
            scan(decay, gs, backwards=True)  # ... and later states
            gh = decay[0] * gs[0]
            reached = (gs @ b[part, :, :, None]).squeeze(-1)  # (C, B, E)
            gx[part] = dt[part] * reached
            gb[part] = ((dt[part] * x[part])[:, :, None] @ gs).squeeze(2)
            # Decays are e^(Δ A): what reaches the exponent is gs * decay * the state before.
            exponent = gs.mul_(decay)
            exponent[1:] *= states[:-1]
            exponent[0] *= begin
            gdt[part] = torch.addcmul((exponent * a).sum(-1), x[part], reached)
            ga = ga + torch.einsum("tben,tbe->en", exponent, dt[part])
        return *(gx.transpose(0, 1), gdt.transpose(0, 1), ga, gb.transpose(0, 1), gc.transpose(0, 1)), gh, None


def _chunks(length: int) -> list[slice]:
    return [slice(begin, begin + CHUNK) for begin in range(0, length, CHUNK)]


def _states(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, h: Tensor, keeps: Tensor | None) -> tuple[Tensor, Tensor]:
    """The states of a chunk's tokens and their decays, (C, B, E, N) each."""
    decay = (dt[..., None] * a).exp_()
    if keeps is not None:
        decay *= keeps[:, :, None, None]
    states = (dt * x)[..., None] * b[:, :, None]
    states[0].addcmul_(decay[0], h)
    scan(decay, states)
    return states, decay


def scan(decay: Tensor, states: Tensor, *, backwards: bool = False) -> None:
    """Add to each state what the one before it leaves, states_t += decay_t states_{t-1}, in place; (T, ...) both.

    Backwards it is states_t += decay_{t+1} states_{t+1}.
    """
    if states.device.type != "cpu":
        return scan_by_doubling(decay, states, backwards=backwards)
    # On a processor a step is long enough to hide what calling it costs, and it touches memory once.
    last = len(states) - 1
    for t in range(1, last + 1):
        if backwards:
            states[last - t].addcmul_(decay[last - t + 1], states[last - t + 1])
        else:
            states[t].addcmul_(decay[t], states[t - 1])


def scan_by_doubling(decay: Tensor, states: Tensor, *, backwards: bool = False) -> None:
    """The same in log2(T) steps: after the one with shift s, each place holds what its last 2 s inflows make of the
    state (Hillis & Steele 1986).
    """
    made = states
    if backwards:
        made, decay = states.flip(0), torch.cat((decay[1:], decay[:1])).flip(0)  # the first one's decay is not used
    shift = 1
    while shift < len(made):
        joined = torch.addcmul(made[shift:], decay[shift:], made[:-shift])
        made = torch.cat((made[:shift], joined))
        decay = torch.cat((decay[:shift], decay[shift:] * decay[:-shift]))
        shift *= 2
    states.copy_(made.flip(0) if backwards else made)
