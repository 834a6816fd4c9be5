"""Channel mixing: RWKV's feed-forward network, which also looks at the token before.

out = sigmoid(W_r x'_r) * W_v relu(W_k x'_k)^2
"""

import torch
from torch import Tensor, nn

from groundup.layers.activations import squared_relu
from groundup.layers.context import Context
from groundup.layers.rwkv.stream import Stream, memory_of
from groundup.layers.rwkv.time_mix import mixture


class ChannelMix2(nn.Module):
    """RWKV-2: one mixture for r and k. (B, T, D) -> (B, T, D)

    Args:
        dim: model width D.
        hidden: width between up_proj (W_k) and down_proj (W_v).
    """

    path: str = ""
    """Dotted name of this module in its model: the name of its part of the state."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.make_mixtures(dim)
        self.r_proj = nn.Linear(dim, dim, bias=False)
        self.up_proj = nn.Linear(dim, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, dim, bias=False)

    def make_mixtures(self, dim: int) -> None:
        """The share of each token itself, feature by feature."""
        self.mix = nn.Parameter(torch.ones(dim))

    def mixed(self, before: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """What r and k are made from."""
        both = torch.lerp(before, x, self.mix)
        return both, both

    def forward(self, x: Tensor, context: Context) -> Tensor:
        xr, xk = self.mixed(Stream.of(context).shift(x, memory_of(self, context)), x)
        return torch.sigmoid(self.r_proj(xr)) * self.down_proj(squared_relu(self.up_proj(xk)))

    @torch.no_grad()
    def init_curves(self, layer: int, num_layers: int) -> None:
        """Half the features begin as those of the token before."""
        self.mix[: len(self.mix) // 2] = 0


class ChannelMix3(ChannelMix2):
    """RWKV-3, 4 and 5, from 2: r and k have their own mixtures."""

    def make_mixtures(self, dim: int) -> None:
        self.mix_r, self.mix_k = (nn.Parameter(torch.ones(dim)) for _ in range(2))

    def mixed(self, before: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.lerp(before, x, self.mix_r), torch.lerp(before, x, self.mix_k)

    @torch.no_grad()
    def init_curves(self, layer: int, num_layers: int) -> None:
        """Mixtures along a curve that depends on the depth."""
        for mix in (self.mix_r, self.mix_k):
            mix.copy_(mixture(mix, layer, num_layers))


class ChannelMix6(ChannelMix3):
    """RWKV-6, from 3: what is learned is the share of the token before, x + (x_{t-1} - x) shift."""

    def make_mixtures(self, dim: int) -> None:
        self.shift_r, self.shift_k = (nn.Parameter(torch.zeros(dim)) for _ in range(2))

    def mixed(self, before: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.lerp(x, before, self.shift_r), torch.lerp(x, before, self.shift_k)

    @torch.no_grad()
    def init_curves(self, layer: int, num_layers: int) -> None:
        power = (1 - layer / num_layers) ** 2  # so that 1 - layer / layers enters in its third power
        for shift in (self.shift_r, self.shift_k):
            shift.copy_(1 - mixture(shift, layer, num_layers, power))


class ChannelMix7(nn.Module):
    """RWKV-7, from 6: no receptance, relu(W_k x')^2 alone. (B, T, D) -> (B, T, D)"""

    path: str = ""
    """Dotted name of this module in its model: the name of its part of the state."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.shift_k = nn.Parameter(torch.zeros(dim))
        self.up_proj = nn.Linear(dim, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        before = Stream.of(context).shift(x, memory_of(self, context))
        return self.down_proj(squared_relu(self.up_proj(torch.lerp(x, before, self.shift_k))))

    @torch.no_grad()
    def init_curves(self, layer: int, num_layers: int) -> None:
        """The share of the token before, along a curve that depends on the depth."""
        power = (1 - layer / num_layers) ** 3  # so that 1 - layer / layers enters in its fourth power
        self.shift_k.copy_(1 - mixture(self.shift_k, layer, num_layers, power))
