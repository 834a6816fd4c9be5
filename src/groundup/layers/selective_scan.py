"""Selective state spaces (Gu & Dao 2023, Mamba): a linear recurrence whose gates follow the input.

Each of E channels has N numbers of state. With x_t the channel's input after a short convolution, and Δ_t, B_t, C_t
linear in x_t,

    h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t x_t        y_t = C_t h_t + D x_t        A = -exp(A_log)

The recurrence is linear in h, so prefixes are joined in any order: log2(T) doublings instead of T steps.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.layers.activations import Activation
from groundup.layers.causal_conv import CausalConv, Memory, in_reading_order
from groundup.layers.context import Context

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
        dt = F.softplus(self.dt_proj(rank).float())[..., None]  # (B, T, E, 1)
        decay = torch.exp(dt * -self.A_log.float().exp())  # (B, T, E, N)
        inflow = dt * b.float()[:, :, None] * channels.float()[..., None]
        if documents is not None:
            decay, inflow = self._documents(decay, inflow, documents, memory is not None)
        past = None if memory is None else memory.get("h")
        y, h = read_out(decay, inflow, c.float(), torch.zeros_like(inflow[:, 0]) if past is None else past)
        if memory is not None:
            memory["h"] = h
        y = y + self.D.float() * channels.float()
        return self.out_proj(y.to(x.dtype) * self.act(gate))

    @staticmethod
    def _documents(decay: Tensor, inflow: Tensor, documents: Tensor, one: bool) -> tuple[Tensor, Tensor]:
        """Nothing flows in from padding; a document begins without a past, unless all of a row is one."""
        real = (documents != 0)[:, :, None, None]
        inflow = torch.where(real, inflow, 0)
        if one:
            return torch.where(real, decay, 1), inflow
        starts = torch.ones_like(documents, dtype=torch.bool)
        starts[:, 1:] = documents[:, 1:] != documents[:, :-1]
        return torch.where(starts[:, :, None, None], 0, decay), inflow


def read_out(decay: Tensor, inflow: Tensor, c: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """C_t h_t of h_t = decay_t h_{t-1} + inflow_t, chunk by chunk.

    Decay and inflow (B, T, E, N), c (B, T, N), h (B, E, N), the state before -> y (B, T, E), the state after.
    """
    outputs = []
    for a, b, read in zip(*(tensor.split(CHUNK, dim=1) for tensor in (decay, inflow, c)), strict=True):
        states = scan(a, b, h)
        h = states[:, -1]
        outputs.append((states * read[:, :, None]).sum(-1))
    return torch.cat(outputs, dim=1), h


def scan(decay: Tensor, inflow: Tensor, h: Tensor) -> Tensor:
    """All states (B, T, ...) of the recurrence, by doubling: after the step with shift s, each place holds what its
    last 2 s inflows make of the state (Hillis & Steele 1986).
    """
    inflow = torch.cat((inflow[:, :1] + decay[:, :1] * h[:, None], inflow[:, 1:]), dim=1)
    shift = 1
    while shift < inflow.shape[1]:
        joined = inflow[:, shift:] + decay[:, shift:] * inflow[:, :-shift]
        inflow = torch.cat((inflow[:, :shift], joined), dim=1)
        decay = torch.cat((decay[:, :shift], decay[:, shift:] * decay[:, :-shift]), dim=1)
        shift *= 2
    return inflow
