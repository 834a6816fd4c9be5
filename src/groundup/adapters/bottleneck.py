"""Adapters: small feed-forward networks with a bottleneck between the layers of a frozen model.

y + s W_up act(W_down y)        W_down (r, D), W_up (D, r), r = D / reduction factor

    Houlsby et al. 2019     after attention and after the feed-forward network, on what they give to the stream
    Pfeiffer et al. 2021    once a block, on the stream that leaves it

Both matrices begin small, so an adapter begins near the identity.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.adapters.configs.bottleneck import BottleneckConfig
from groundup.adapters.part import Part, placed_like
from groundup.adapters.plan import Plan
from groundup.base.errors import UsageError
from groundup.layers.activations import activation
from groundup.layers.norms import LayerNorm

BRANCHES = {"attention": ("attn", "mixer"), "feed_forward": ("mlp",)}
"""A place -> what blocks call the part that it follows."""


class Bottleneck(Part):
    """One adapter, after a layer that gives (..., D).

    Args:
        dim: D.
        config: width, activation, norms, scaling.
        where: device and dtype of its weights.
    """

    def __init__(self, dim: int, config: BottleneckConfig, where: dict[str, Any]):
        super().__init__()
        width = max(1, int(dim // config.reduction_factor))
        self.norm_before = LayerNorm(dim).to(**where) if config.norm_before else None
        self.down = nn.Linear(dim, width, **where)
        self.up = nn.Linear(width, dim, **where)
        self.norm_after = LayerNorm(dim).to(**where) if config.norm_after else None
        self.act, self.dropout, self.scale = activation(config.activation), config.dropout, config.scaling
        if not isinstance(self.scale, float):
            self.scale = nn.Parameter(torch.ones(dim if self.scale == "channel" else 1, **where))
        for layer in (self.down, self.up):
            nn.init.normal_(layer.weight, std=config.std)
            nn.init.zeros_(layer.bias)

    def change(self, y: Tensor) -> Tensor:
        """What is added, s W_up act(W_down y), in the weights' dtype; a fusion weighs it. (..., D) -> (..., D)"""
        x = y.to(self.down.weight.dtype)
        if self.norm_before is not None:
            x = self.norm_before(x)
        return self.up(self.act(self.down(x))) * self.scale

    def after(self, base: nn.Module, args: tuple[Any, ...], y: Tensor) -> Tensor:
        change = F.dropout(self.change(y), self.dropout, self.training)
        if self.norm_after is not None:
            change = self.norm_after(change)
        return y + change.to(y.dtype)


def plan(model: nn.Module, config: BottleneckConfig) -> Plan:
    """An adapter at each place of each block."""
    parts: dict[str, Part] = {}
    for where, layer in places(model, config.places, config.leave_out).items():
        parts[where] = Bottleneck(model.config.hidden_size, config, placed_like(layer))  # type: ignore[union-attr]
    return Plan(parts)


def places(model: nn.Module, wanted: list[Any], leave_out: list[int]) -> dict[str, nn.Module]:
    """Dotted names of what adapters follow, in the model's order.

    Raises:
        UsageError: the blocks are no attention and feed-forward network; or no such blocks have been left.
    """
    found: dict[str, nn.Module] = {}
    for i, block in getattr(model, "blocks", nn.ModuleDict()).items():
        branches = {place: _branch(block, names) for place, names in BRANCHES.items()}
        if branches["attention"] is None:
            raise UsageError(
                f"block {i} is a {type(block).__name__}, which has no attention and no mixer: adapters with a "
                "bottleneck have no place there"
            )
        if int(i) in leave_out:
            continue
        if "block" in wanted:
            found[f"blocks.{i}"] = block
        for place, name in branches.items():
            if place in wanted and name is not None:
                found[f"blocks.{i}.{name}"] = getattr(block, name)
    if not found:
        raise UsageError(
            f"no block is left for adapters after {', '.join(wanted)}: all are left out, or lack the place"
        )
    return found


def _branch(block: nn.Module, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if isinstance(getattr(block, name, None), nn.Module)), None)
