"""Time mixing with heads that remember matrices: RWKV-5, 6 and 7.

r, k, v = W_r x'_r, W_k x'_k, W_v x'_v        x' a mixture of x_t and x_{t-1}
y       = what the head reads from its matrix  (`decayed_attention`, `delta_rule`)
out     = W_o (GroupNorm(y) * gate)
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.layers import init
from groundup.layers.context import Context
from groundup.layers.norms import HeadGroupNorm
from groundup.layers.rwkv.decayed_attention import decayed_attention
from groundup.layers.rwkv.delta_rule import LOWEST, Delta, delta_rule
from groundup.layers.rwkv.stream import Stream, memory_of
from groundup.layers.rwkv.time_mix import mixture, spread, zigzag

if TYPE_CHECKING:
    from groundup.state import RecurrentState


class HeadTimeMix(nn.Module):
    """What versions 5.0 to 7 share. (B, T, D) -> (B, T, D)

    Args:
        dim: model width D.
        num_heads: heads H, each D / H wide.
        eps: of the GroupNorm.
    """

    path: str = ""
    """Dotted name of this module in its model: the name of its part of the state."""

    def __init__(self, dim: int, num_heads: int, eps: float = 64e-5):
        super().__init__()
        self.num_heads = num_heads
        self.r_proj = nn.Linear(dim, dim, bias=False)
        self.k_proj = nn.Linear(dim, dim, bias=False)
        self.v_proj = nn.Linear(dim, dim, bias=False)
        self.o_proj = nn.Linear(dim, dim, bias=False)
        self.norm = HeadGroupNorm(num_heads, dim, eps)

    def heads(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, H, T, N)"""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def init_norm(self, layer: int, num_layers: int) -> None:
        """Deeper layers begin with more of what their heads read."""
        nn.init.constant_(self.norm.weight, ((1 + layer) / num_layers) ** 0.7)


def _matrix(memory: "RecurrentState | None") -> Tensor | None:
    return None if memory is None else memory.tensors.get("matrix")


class TimeMix50(HeadTimeMix):
    """RWKV-5.0 (2023), from 4: heads with a matrix each in place of channels with a number each; no normalising sum, so
    a GroupNorm; no sigmoid on r. A head has one decay and one bonus, e^bonus.
    """

    mixtures = "kvr"

    def __init__(self, dim: int, num_heads: int, eps: float = 64e-5):
        super().__init__(dim, num_heads, eps)
        for name in self.mixtures:
            self.register_parameter(f"mix_{name}", nn.Parameter(torch.ones(dim)))
        self.make_rates(dim)

    def make_rates(self, dim: int) -> None:
        """log(-w) and the bonus of each head."""
        self.decay = nn.Parameter(torch.zeros(self.num_heads, 1))
        self.bonus = nn.Parameter(torch.zeros(self.num_heads, 1))

    def bonuses(self) -> Tensor:
        """U, (H, 1 or N)."""
        return torch.exp(self.bonus.float())

    def forward(self, x: Tensor, context: Context) -> Tensor:
        stream, memory = Stream.of(context), memory_of(self, context)
        before = stream.shift(x, memory)
        mixed = {name: torch.lerp(before, x, getattr(self, f"mix_{name}")) for name in self.mixtures}
        k, v, r = (self.heads(p(mixed[n])) for n, p in (("k", self.k_proj), ("v", self.v_proj), ("r", self.r_proj)))
        w = -torch.exp(self.decay.float())[None, :, None].expand(1, *r.shape[1:])  # (1, H, T, N)
        y, state = decayed_attention(r, w, k, v, self.bonuses(), _matrix(memory), stream)
        if memory is not None:
            memory.tensors["matrix"] = state.detach()
        y = self.norm(y.transpose(1, 2).flatten(2).to(x.dtype))
        return self.o_proj(self.gated(y, mixed))

    def gated(self, y: Tensor, mixed: dict[str, Tensor]) -> Tensor:
        """No gate yet."""
        return y

    @torch.no_grad()
    def init_curves(self, layer: int, num_layers: int) -> None:
        """Mixtures and decays along curves that depend on the depth."""
        depth = layer / max(num_layers - 1, 1)
        self.init_norm(layer, num_layers)
        for name, power, more in (("k", 1.0, 0.0), ("v", 1.0, 0.3 * depth), ("r", 0.5, 0.0), ("g", 0.5, 0.0)):
            if name in self.mixtures:
                mix = getattr(self, f"mix_{name}")
                mix.copy_(mixture(mix, layer, num_layers, power) + more)
        self.decay.copy_((-6 + 5 * spread(self.decay) ** (0.7 + 1.3 * depth)).view_as(self.decay))
        self.init_bonus(depth)

    def init_bonus(self, depth: float) -> None:
        """The same for all heads."""
        self.bonus.fill_(-3.0)


class TimeMix51(TimeMix50):
    """RWKV-5.1, from 5.0: a gate, GroupNorm(y) * silu(W_g x'_g), and the bonus is learned as it is."""

    mixtures = "kvrg"

    def __init__(self, dim: int, num_heads: int, eps: float = 64e-5):
        super().__init__(dim, num_heads, eps)
        self.gate_proj = nn.Linear(dim, dim, bias=False)

    def bonuses(self) -> Tensor:
        return self.bonus

    def gated(self, y: Tensor, mixed: dict[str, Tensor]) -> Tensor:
        return y * F.silu(self.gate_proj(mixed["g"]))

    def init_bonus(self, depth: float) -> None:
        """Larger in deeper layers, smaller in later heads."""
        self.bonus.copy_((depth * (1 - spread(self.bonus))).view_as(self.bonus))


class TimeMix52(TimeMix51):
    """RWKV-5.2, Eagle (Peng et al. 2024), from 5.1: each feature of a head has its own decay and bonus."""

    def make_rates(self, dim: int) -> None:
        self.decay = nn.Parameter(torch.zeros(self.num_heads, dim // self.num_heads))
        self.bonus = nn.Parameter(torch.zeros(self.num_heads, dim // self.num_heads))

    def init_bonus(self, depth: float) -> None:
        """Larger in deeper layers, smaller in later features, alternating."""
        self.bonus.copy_((depth * (1 - spread(self.bonus)) + 0.1 * zigzag(self.bonus)).view_as(self.bonus))


class LowRank(nn.Module):
    """act(x down) up + bias: a small network that makes one number per feature. (B, T, D) -> (B, T, D)

    Args:
        dim: features D.
        rank: width between down (D, rank) and up (rank, D).
        act: between the two, or None.
        bias: whether there is one.
    """

    def __init__(self, dim: int, rank: int, act: Callable[[Tensor], Tensor] | None = None, *, bias: bool = True):
        super().__init__()
        self.act = act
        self.down = nn.Parameter(torch.zeros(dim, rank))
        self.up = nn.Parameter(torch.zeros(rank, dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        h = x @ self.down
        h = (h if self.act is None else self.act(h)) @ self.up
        return h if self.bias is None else h + self.bias


class TimeMix6(HeadTimeMix):
    """RWKV-6, Finch (Peng et al. 2024), from 5.2: mixtures and decays depend on the text.

        x'      = x + (x_{t-1} - x) shift_x
        m_i     = tanh(x' A_i) B_i                    for i of w, k, v, r, g
        x'_i    = x + (x_{t-1} - x) (shift_i + m_i)
        w_t     = -exp(decay + tanh(x'_w C) E)        at every token

    Args:
        dim, num_heads, eps: see `HeadTimeMix`.
        mix_rank, decay_rank: width of A and of C.
    """

    order = "wkvrg"

    def __init__(self, dim: int, num_heads: int, mix_rank: int = 32, decay_rank: int = 64, eps: float = 64e-5):
        super().__init__(dim, num_heads, eps)
        for name in ("x", *self.order):
            self.register_parameter(f"shift_{name}", nn.Parameter(torch.zeros(dim)))
        self.mix_down = nn.Parameter(torch.zeros(dim, 5 * mix_rank))
        self.mix_up = nn.Parameter(torch.zeros(5, mix_rank, dim))
        self.decay = LowRank(dim, decay_rank, torch.tanh)
        self.bonus = nn.Parameter(torch.zeros(num_heads, dim // num_heads))
        self.gate_proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        stream, memory = Stream.of(context), memory_of(self, context)
        xw, xk, xv, xr, xg = self.mixed(stream.shift(x, memory), x)
        r, k, v = self.heads(self.r_proj(xr)), self.heads(self.k_proj(xk)), self.heads(self.v_proj(xv))
        w = -torch.exp(self.heads(self.decay(xw)).float())
        y, state = decayed_attention(r, w, k, v, self.bonus, _matrix(memory), stream)
        if memory is not None:
            memory.tensors["matrix"] = state.detach()
        y = self.norm(y.transpose(1, 2).flatten(2).to(x.dtype))
        return self.o_proj(y * F.silu(self.gate_proj(xg)))

    def mixed(self, before: Tensor, x: Tensor) -> list[Tensor]:
        """x'_w, x'_k, x'_v, x'_r, x'_g."""
        first = torch.lerp(x, before, self.get_parameter("shift_x"))
        small = torch.tanh(first @ self.mix_down).unflatten(-1, (5, -1))  # (B, T, 5, rank)
        change = before - x
        return [
            torch.addcmul(x, change, getattr(self, f"shift_{name}") + small[..., i, :] @ self.mix_up[i])
            for i, name in enumerate(self.order)
        ]

    @torch.no_grad()
    def init_curves(self, layer: int, num_layers: int) -> None:
        """As in 5.2; what depends on the text begins at zero."""
        depth = layer / max(num_layers - 1, 1)
        self.init_norm(layer, num_layers)
        for name in ("x", *self.order):
            shift, power = getattr(self, f"shift_{name}"), 0.5 if name in "rg" else 1.0
            shift.copy_(1 - mixture(shift, layer, num_layers, power) - (0.3 * depth if name == "v" else 0))
        self.mix_up.uniform_(-0.01, 0.01)
        self.decay.up.uniform_(-0.01, 0.01)
        assert self.decay.bias is not None
        self.decay.bias.copy_(-6 + 5 * spread(self.decay.bias) ** (0.7 + 1.3 * depth))
        self.bonus.copy_((depth * (1 - spread(self.bonus)) + 0.1 * zigzag(self.bonus)).view_as(self.bonus))


class TimeMix7(HeadTimeMix):
    """RWKV-7, Goose (Peng et al. 2025), from 6: the matrix is corrected by a generalised delta rule.

        w_t   = -e^{-1/2} sigmoid(decay(x'_w))                          decays between 0.545 and 1
        v     = v + (v_first - v) sigmoid(residual(x'_v))               v_first: the values of the first layer
        alpha = sigmoid(rate(x'_a))                                     how fast the context is learned
        kappa = normalised (k * removal),  k = k (1 + (alpha - 1) * replacement)
        y     = delta rule with a = -kappa, b = kappa alpha
        out   = W_o ((GroupNorm(y) + (sum of r k boost over the head) v) * gate(x'_g))

    with decay, residual and rate low-rank networks with biases, and gate one with a sigmoid inside.

    Args:
        dim, num_heads, eps: see `HeadTimeMix`.
        ranks: of decay, rate, residual and gate.
        first: whether this is the first layer, which has no residual.
    """

    order = "rwkvag"

    def __init__(self, dim: int, num_heads: int, ranks: tuple[int, int, int, int], *, first: bool, eps: float = 64e-5):
        super().__init__(dim, num_heads, eps)
        decay, rate, residual, gate = ranks
        for name in self.order:
            self.register_parameter(f"shift_{name}", nn.Parameter(torch.zeros(dim)))
        self.decay = LowRank(dim, decay, torch.tanh)
        self.rate = LowRank(dim, rate)
        self.residual = None if first else LowRank(dim, residual)
        self.gate = LowRank(dim, gate, torch.sigmoid, bias=False)
        self.removal = nn.Parameter(torch.ones(dim))
        self.replacement = nn.Parameter(torch.ones(dim))
        self.boost = nn.Parameter(torch.zeros(num_heads, dim // num_heads))

    def forward(self, x: Tensor, context: Context) -> Tensor:
        stream, memory = Stream.of(context), memory_of(self, context)
        before = stream.shift(x, memory)
        xr, xw, xk, xv, xa, xg = (torch.lerp(x, before, getattr(self, f"shift_{name}")) for name in self.order)
        r, k, v = self.r_proj(xr), self.k_proj(xk), self.value(xv, context.shared)
        w = LOWEST * torch.sigmoid(self.decay(xw).float())
        rate = torch.sigmoid(self.rate(xa))
        kappa = F.normalize(self.heads(k * self.removal), dim=-1)
        k = k * (1 + (rate - 1) * self.replacement)
        r, w, k, v, rate = (self.heads(part) for part in (r, w, k, v, rate))
        y, state = delta_rule(Delta(r, w, k, -kappa, kappa * rate), v, _matrix(memory), stream)
        if memory is not None:
            memory.tensors["matrix"] = state.detach()
        own = (r * k * self.boost[:, None]).sum(-1, keepdim=True) * v
        y = self.norm(y.transpose(1, 2).flatten(2).to(x.dtype)) + own.transpose(1, 2).flatten(2)
        return self.o_proj(y * self.gate(xg))

    def value(self, xv: Tensor, shared: dict[str, Any]) -> Tensor:
        """V, drawn towards the first layer's, feature by feature."""
        v = self.v_proj(xv)
        if self.residual is None:
            shared["first_value"] = v
            return v
        return v + (shared["first_value"] - v) * torch.sigmoid(self.residual(xv))

    @torch.no_grad()
    def init_curves(self, layer: int, num_layers: int) -> None:
        """Shares, decays and rates along curves over the features; low-rank networks begin as their biases."""
        depth = layer / max(num_layers - 1, 1)
        self.init_norm(layer, num_layers)
        powers = {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}
        for name, power in powers.items():
            shift = getattr(self, f"shift_{name}")
            shift.copy_(1 - mixture(shift, layer, num_layers, power))
        assert self.decay.bias is not None
        assert self.rate.bias is not None
        line = spread(self.decay.bias)
        within = (torch.arange(len(line), device=line.device) % self.boost.shape[1]) / (self.boost.shape[1] - 1) * 2 - 1
        bow = within * within.abs()  # -1 to 1 over each head
        self.decay.bias.copy_(-6 + 6 * line ** (1 + depth**0.3) + 0.5 + 2.5 * bow)
        self.rate.bias.copy_(-0.19 + 0.3 * bow + 0.4 * (line - 0.5))
        networks = [self.decay, self.rate, self.gate]
        if self.residual is not None and self.residual.bias is not None:
            self.residual.bias.copy_(0.73 - 0.4 * (line - 0.5))
            networks.append(self.residual)
        for network in networks:
            rows, columns = network.up.shape
            init.orthogonal(network.up, 0.1 * max(1.0, rows / columns) ** 0.5)
        self.removal.copy_(0.71 - 0.1 * (line - 0.5))
        self.replacement.fill_(1.02)
        self.boost.fill_(-0.04)
