"""AdapterFusion: what several adapters have learned, combined by a learned attention (Pfeiffer et al. 2021).

y + sum_i a_i V z_i        a = softmax_i(Q y . K z_i)        z_i = W_up,i act(W_down,i y)

First knowledge is extracted: an adapter for each task, trained alone (ST-A), or all together on batches whose rows
belong to different tasks (MT-A). Then it is composed: the adapters are frozen, and Q, K and V learn on a target task.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.adapters.attach import adapters_of
from groundup.adapters.bottleneck import Bottleneck
from groundup.adapters.configs.fusion import FusionConfig
from groundup.adapters.part import Part, placed_like
from groundup.adapters.penalty import num_tokens, penalised
from groundup.adapters.plan import Plan
from groundup.base.errors import UsageError


class Fusion(Part):
    """The attention over the adapters at one place; it finds them on the layer on which it stands.

    Args:
        dim: D.
        config: which adapters, and whether there are values.
        where: device and dtype of its weights.
    """

    def __init__(self, dim: int, config: FusionConfig, where: dict[str, Any]):
        super().__init__()
        self.of, self.dropout, self.regularisation = tuple(config.of), config.dropout, config.regularisation
        self.query, self.key = nn.Linear(dim, dim, **where), nn.Linear(dim, dim, **where)
        self.value = nn.Linear(dim, dim, bias=False, **where) if config.value else None
        for layer in (self.query, self.key):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        if self.value is not None:
            nn.init.constant_(self.value.weight, 1e-6)
            self.value.weight.data.fill_diagonal_(1.0)

    def after(self, base: nn.Module, args: tuple[Any, ...], y: Tensor) -> Tensor:
        x = y.to(self.query.weight.dtype)
        z = torch.stack([base.adapters[name].change(y) for name in self.of], dim=-2)  # type: ignore[index]
        values = z if self.value is None else self.value(z)  # (..., N, D)
        mixed = (self.weights(x, z)[..., None] * values).sum(-2)
        if self.training and self.value is not None and self.regularisation:
            mixed = penalised(mixed, self.regularisation * self._distance(), num_tokens(args))
        return y + mixed.to(y.dtype)

    def weights(self, x: Tensor, z: Tensor) -> Tensor:
        """How much each adapter counts: x (..., D), z (..., N, D) -> (..., N), rows sum to 1."""
        scores = (self.key(z) @ self.query(x)[..., None])[..., 0]
        return F.dropout(scores, self.dropout, self.training).softmax(-1)

    def _distance(self) -> Tensor:
        """How far the values are from the identity: sum (V - 1)^2."""
        weight = self.value.weight  # type: ignore[union-attr]
        return (weight - torch.eye(len(weight), device=weight.device, dtype=weight.dtype)).square().sum()


def plan(model: nn.Module, config: FusionConfig) -> Plan:
    """A fusion wherever the adapters stand.

    Raises:
        UsageError: one of them is not there, is of another kind, or stands at other places.
    """
    adapters = adapters_of(model)
    places: dict[str, dict[str, Part]] = {}
    for name in config.of:
        if name not in adapters.plans:
            there = ", ".join(adapters.plans) or "none"
            raise UsageError(f"a fusion of `{name}`, which this model does not have. It has: {there}")
        parts = adapters.plans[name].parts
        if not parts or not all(isinstance(part, Bottleneck) for part in parts.values()):
            raise UsageError(f"a fusion is of adapters with a bottleneck, which `{name}` is not")
        places[name] = parts
    first = config.of[0]
    for name, parts in places.items():
        if {*parts} != {*places[first]}:
            raise UsageError(f"`{first}` and `{name}` stand at different places: a fusion needs all of them at each")
    width: int = model.config.hidden_size  # type: ignore
    return Plan({where: Fusion(width, config, placed_like(part)) for where, part in places[first].items()})
