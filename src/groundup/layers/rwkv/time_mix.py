"""Time mixing of RWKV-2, 3 and 4: what a block of a transformer has attention for.

r, k, v = W_r x', W_k x', W_v x'          x' = mu x_t + (1 - mu) x_{t-1}: each token looks at the one before it
out     = W_o (sigmoid(r) wkv(k, v))      wkv: the weighted mean of all v so far (`wkv`)
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from groundup.layers.context import Context
from groundup.layers.rwkv.stream import NEVER, Stream, in_float32, memory_of
from groundup.layers.rwkv.wkv import WKV, clamped_wkv, stable_wkv

if TYPE_CHECKING:
    from groundup.state import RecurrentState


class TimeMix2(nn.Module):
    """RWKV-2 (Peng 2022): one mixture for r, k and v. (B, T, D) -> (B, T, D)

    Args:
        dim: model width D.
        width: channels of r, k and v.
        eps: added to the denominator of the mean.
    """

    path: str = ""
    """Dotted name of this module in its model: the name of its part of the state."""
    empty_peak = 0.0
    kept: tuple[str, ...] = ("num", "den")  # of the state: what differs from that of an empty text

    def __init__(self, dim: int, width: int, eps: float = 1e-16):
        super().__init__()
        self.eps = eps
        self.make_mixtures(dim)
        self.decay = nn.Parameter(torch.zeros(width))  # log(-w)
        self.bonus = nn.Parameter(torch.zeros(width))  # u
        self.r_proj = nn.Linear(dim, width, bias=False)
        self.k_proj = nn.Linear(dim, width, bias=False)
        self.v_proj = nn.Linear(dim, width, bias=False)
        self.o_proj = nn.Linear(width, dim, bias=False)

    def make_mixtures(self, dim: int) -> None:
        """The share of each token itself, feature by feature."""
        self.mix = nn.Parameter(torch.ones(dim))

    def mixed(self, before: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What r, k and v are made from."""
        both = torch.lerp(before, x, self.mix)
        return both, both, both

    def mean(self, k: Tensor, v: Tensor, state: WKV, stream: Stream) -> tuple[Tensor, WKV]:
        """The weighted mean of v so far."""
        return clamped_wkv(self.decay.float(), self.bonus.float(), k, v, state, stream, self.eps)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        stream, memory = Stream.of(context), memory_of(self, context)
        xr, xk, xv = self.mixed(stream.shift(x, memory), x)
        k, v = self.k_proj(xk).float(), self.v_proj(xv).float()
        with in_float32(x):
            wkv, state = self.mean(k, v, self.remembered(memory, k), stream)
        if memory is not None:
            memory.tensors |= {name: getattr(state, name) for name in self.kept}
        return self.o_proj(torch.sigmoid(self.r_proj(xr)) * wkv.to(x.dtype))

    def remembered(self, memory: "RecurrentState | None", k: Tensor) -> WKV:
        """The sums that earlier calls left."""
        if memory is None or "num" not in memory.tensors:
            return WKV.empty(k, self.empty_peak)
        return WKV(**{name: memory.tensors[name] for name in self.kept})

    @torch.no_grad()
    def init_curves(self, layer: int, num_layers: int) -> None:
        """Half the features begin as those of the token before; decays spread over the channels, ever slower ones in
        deeper layers.
        """
        self.mix[: len(self.mix) // 2] = 0
        depth = (layer - 1) / max(num_layers - 2, 1)
        fastest = 3.0 + depth * (1.2 - 3.0) + (0.5 if layer == 1 else 0)
        slowing = 0.65 + depth * (0.4 - 0.65)
        slowing = {num_layers - 2: 0.4, num_layers - 1: 0.37}.get(layer, slowing)
        self.decay.copy_(torch.log(fastest * slowing ** (7 * spread(self.decay))))
        self.bonus.fill_(math.log(0.3))


class TimeMix3(TimeMix2):
    """RWKV-3 (Peng 2022), from 2: r, k and v have their own mixtures."""

    def __init__(self, dim: int, width: int, eps: float = 1e-8):
        super().__init__(dim, width, eps)

    def make_mixtures(self, dim: int) -> None:
        self.mix_r, self.mix_k, self.mix_v = (nn.Parameter(torch.ones(dim)) for _ in range(3))

    def mixed(self, before: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        xr, xk, xv = (torch.lerp(before, x, mix) for mix in (self.mix_r, self.mix_k, self.mix_v))
        return xr, xk, xv

    @torch.no_grad()
    def init_curves(self, layer: int, num_layers: int) -> None:
        """Mixtures and decays along curves that depend on the depth; the bonus alternates."""
        depth = layer / max(num_layers - 1, 1)
        self.mix_k.copy_(mixture(self.mix_k, layer, num_layers))
        self.mix_v.copy_(mixture(self.mix_v, layer, num_layers) + 0.3 * depth)
        self.mix_r.copy_(mixture(self.mix_r, layer, num_layers, 0.5))
        self.decay.copy_(-5 + 8 * spread(self.decay) ** (0.7 + 1.3 * depth))
        self.bonus.copy_(math.log(0.3) + 0.5 * zigzag(self.bonus))


class TimeMix4(TimeMix3):
    """RWKV-4 (Peng et al. 2023), from 3: the mean is computed so that no key can overflow it."""

    empty_peak = NEVER
    kept = WKV._fields

    def mean(self, k: Tensor, v: Tensor, state: WKV, stream: Stream) -> tuple[Tensor, WKV]:
        return stable_wkv(self.decay.float(), self.bonus.float(), k, v, state, stream)


def spread(like: Tensor) -> Tensor:
    """0 to 1 over the channels."""
    return torch.arange(like.numel(), device=like.device) / max(like.numel() - 1, 1)


def zigzag(like: Tensor) -> Tensor:
    """0, 1, -1, 0, 1, -1, ... over the channels."""
    return (torch.arange(like.numel(), device=like.device) + 1) % 3 - 1


def mixture(like: Tensor, layer: int, num_layers: int, power: float = 1.0) -> Tensor:
    """(d / D) ** (power * (1 - layer / layers)): later layers and later features look less at the token before."""
    share = torch.arange(like.numel(), device=like.device) / like.numel()
    return share ** (power * (1 - layer / num_layers))
