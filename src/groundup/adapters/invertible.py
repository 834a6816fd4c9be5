"""MAD-X's language adapters: adapters in the blocks, and one at the embedding that can be turned back (Pfeiffer et al.
2020).

The halves x1, x2 of an embedding are changed by turns, each by a function of the other (NICE, Dinh et al. 2015):

    y1 = x1 + F(x2)        y2 = x2 + G(y1)              after the embedding
    x2 = y2 - G(y1)        x1 = y1 - F(x2)              before the output embedding

F and G can be any functions, here bottlenecks, since the inverse only subtracts what was added. So where both ends of
a model share one table of words, they also share the language's correction of it.

    adapters.activate("english", "task")    # stacked: each block's language adapter first, then the task's
    adapters.activate("python", "task")     # the same task in another language
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from groundup.adapters import bottleneck
from groundup.adapters.configs.invertible import InvertibleConfig
from groundup.adapters.part import Part, placed_like
from groundup.adapters.plan import Plan
from groundup.base.errors import UsageError
from groundup.layers.activations import Activation, activation


class Subnet(nn.Module):
    """W_2 act(W_1 x + b_1) + b_2, the function of one half that is added to the other. (..., in) -> (..., out)"""

    def __init__(self, in_features: int, out_features: int, factor: float, act: Activation, where: dict[str, Any]):
        super().__init__()
        width = max(1, int(in_features // factor))
        self.down, self.up = nn.Linear(in_features, width, **where), nn.Linear(width, out_features, **where)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.act(self.down(x)))


class Invertible(Part):
    """The coupling at the embedding.

    Args:
        dim: D; the first half has D // 2 features.
        config: width and activation of F and G, and how they begin.
        where: device and dtype of its weights.
    """

    def __init__(self, dim: int, config: InvertibleConfig, where: dict[str, Any]):
        super().__init__()
        act, factor = activation(config.activation), config.embedding_reduction_factor
        self.split: int = dim // 2
        self.F = Subnet(dim - self.split, self.split, factor, act, where)
        self.G = Subnet(self.split, dim - self.split, factor, act, where)
        for layer in (self.F.down, self.F.up, self.G.down, self.G.up):
            nn.init.normal_(layer.weight, std=config.std)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """From embeddings to those of the language. (..., D) -> (..., D)"""
        x1, x2 = x[..., : self.split], x[..., self.split :]
        y1 = x1 + self.F(x2)
        return torch.cat((y1, x2 + self.G(y1)), dim=-1)

    def inverse(self, y: Tensor) -> Tensor:
        """Back again, from those of the language to embeddings. (..., D) -> (..., D)"""
        y1, y2 = y[..., : self.split], y[..., self.split :]
        x2 = y2 - self.G(y1)
        return torch.cat((y1 - self.F(x2), x2), dim=-1)

    def after(self, base: nn.Module, args: tuple[Any, ...], y: Tensor) -> Tensor:
        return self(y.to(self.F.down.weight.dtype)).to(y.dtype)

    @classmethod
    def after_rows(
        cls, parts: Sequence[Part | None], rows: Tensor, base: nn.Module, args: tuple[Any, ...], y: Any
    ) -> Any:
        return super().after_rows(parts, rows, base, (y, *args[1:]), y)  # whatever stood for the vectors, ids or others


class Inverse(Part):
    """The coupling turned back before the output embedding. Its weights are those at the embedding."""

    def __init__(self, coupling: Invertible):
        super().__init__()
        self._coupling = (coupling,)  # in a tuple, so that its weights are counted and saved once

    def before(self, base: nn.Module, *args: Any) -> tuple[Any, ...]:
        x, coupling = args[0], self._coupling[0]
        return (coupling.inverse(x.to(coupling.F.down.weight.dtype)).to(x.dtype), *args[1:])


def plan(model: nn.Module, config: InvertibleConfig) -> Plan:
    """Adapters in the blocks, a coupling at the embedding, its inverse before the head."""
    parts = bottleneck.plan(model, config).parts
    embed, head = getattr(model, "embed", None), getattr(model, "lm_head", None)
    if embed is None or head is None:
        raise UsageError(
            "an invertible adapter stands at the embedding and before the head: this model lacks one of them"
        )
    width: int = model.config.hidden_size  # type: ignore
    if getattr(head, "in_features", width) != width:
        raise UsageError(
            f"the head reads {head.in_features} features, the blocks {width}: an invertible adapter cannot be turned "
            "back before such a head"
        )
    coupling = Invertible(width, config, placed_like(embed))
    return Plan({"embed": coupling, **parts, "lm_head": Inverse(coupling)})
