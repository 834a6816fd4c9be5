"""The position-wise feed-forward network of a block."""

import torch.nn.functional as F
from torch import Tensor, nn

from groundup.layers.activations import Activation


class MLP(nn.Module):
    """down(act(up(x))), the same for every position (Vaswani et al. 2017). (B, T, D) -> (B, T, D)"""

    def __init__(self, dim: int, hidden: int, act: Activation = F.relu, *, bias: bool = True):
        super().__init__()
        self.up_proj = nn.Linear(dim, hidden, bias)
        self.down_proj = nn.Linear(hidden, dim, bias)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act(self.up_proj(x)))


class GatedMLP(nn.Module):
    """down(act(gate(x)) * up(x)) (Shazeer 2020): GLU with sigmoid, GeGLU with GELU, SwiGLU with SiLU."""

    def __init__(self, dim: int, hidden: int, act: Activation = F.silu, *, bias: bool = False):
        super().__init__()
        self.gate_proj = nn.Linear(dim, hidden, bias)
        self.up_proj = nn.Linear(dim, hidden, bias)
        self.down_proj = nn.Linear(hidden, dim, bias)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x))


def gated_width(dim: int, multiple_of: int = 256, multiplier: float = 1.0) -> int:
    """Hidden width that gives a gated MLP the parameters of an ungated one of width 4 dim: 2/3 of 4 dim, times
    `multiplier`, rounded up to a multiple (Touvron et al. 2023): 4096 -> 11008, with 1.3 and 1024 -> 14336.
    """
    hidden = int(multiplier * int(2 * 4 * dim / 3))
    return -(-hidden // multiple_of) * multiple_of
