"""Multiples, sums and differences of low-rank adapters.

multiply    c D
combine     sum_i c_i D_i = [c_1 s_1 B_1, c_2 s_2 B_2, ..] [A_1; A_2; ..]      exact: ranks add up
extract     W_tuned - W_base = U S V^T ~ (U_r sqrt(S_r)) (sqrt(S_r) V_r^T)     the best of rank r (Eckart & Young 1936)
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from groundup.adapters.attach import Adapters, adapters_of
from groundup.adapters.configs.lora import LoRAConfig
from groundup.adapters.lora import LoRA, factors, lora_targets
from groundup.adapters.part import Part, base_weight
from groundup.adapters.plan import Plan
from groundup.base.console import progress
from groundup.base.errors import UsageError
from groundup.layers.moe.experts import GroupedLinear


def multiply(model: nn.Module, factor: float, name: str = "default") -> None:
    """Multiply what a LoRA adds by a number, in place: 0.5 is half its effect, -1 its opposite."""
    parts = _loras(adapters_of(model), name)
    with torch.no_grad():
        for part in parts.values():
            part.lora_B.weight.mul_(factor)
            if part.start_B is not None:
                part.start_B.mul_(factor)


def combine(model: nn.Module, weights: dict[str, float], name: str, *, rank: int | None = None) -> Adapters:
    """Put a new LoRA on the model that adds the weighted sum of what others add; they stay, and only the new one acts.

    Args:
        model: with the others on it.
        weights: name of an adapter -> its factor.
        name: of the new one.
        rank: its rank, the best for the sum (SVD); the sum of their ranks, which is exact, when None.

    Raises:
        UsageError: one is no LoRA, or does more than add (DoRA); or the name is taken.
    """
    adapters = adapters_of(model)
    if not weights:
        raise UsageError("`weights` is empty: name the adapters to add up")
    loras = {other: _loras(adapters, other) for other in weights}
    places = list(dict.fromkeys(where for parts in loras.values() for where in parts))
    made: dict[str, Part] = {}
    for where in progress(places, label="combining", unit="layer") if rank is not None else places:
        pairs = [(factors(loras[other][where]), c) for other, c in weights.items() if where in loras[other]]
        a = torch.cat([a for (a, _), _ in pairs], dim=-2).detach()
        b = torch.cat([b * c for (_, b), c in pairs], dim=-1).detach()
        if rank is not None:
            a, b, _, _ = best(b @ a, min(rank, a.shape[-2]))
        made[where] = _lora(model.get_submodule(where), a, b)
    adapters.add(name, _config(made), Plan(made))
    return adapters


@dataclass(frozen=True)
class Extraction:
    """What an extraction kept.

    Attributes:
        share: of the difference's norm: |D_r| / |D| over all tensors, 1 where nothing is lost.
        layers: dotted name -> the share in this layer.
        left_out: tensors that differ and that no matrix can hold, such as norms and biases.
    """

    share: float
    layers: dict[str, float]
    left_out: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        rest = (
            f"; left out: {', '.join(self.left_out[:3])} and {len(self.left_out) - 3} others" if self.left_out else ""
        )
        rest = rest.replace(" and 0 others", "") if len(self.left_out) <= 3 else rest
        return f"{len(self.layers)} layers, {self.share:.2%} of the difference's norm{rest.split(' and -')[0]}"


@torch.no_grad()
def extract(
    tuned: nn.Module, base: nn.Module, rank: int, name: str = "default", *, targets: list[str] | None = None
) -> Extraction:
    """Put a LoRA on `base` that makes of it, as well as this rank can, a model that was tuned in full.

    Args:
        tuned: the model that was tuned; it is not changed.
        base: what it was tuned from, of the same shape.
        rank: r; a layer that has fewer singular values takes all.
        name: of the new adapter, which then acts alone.
        targets: which layers, see LoRAConfig; all linear layers in blocks when None.

    Raises:
        UsageError: the models differ in shape, or do not differ at all in the targets.
    """
    config = LoRAConfig(rank=rank, targets=targets or ["all-linear"])
    ours, theirs = (dict(m.state_dict()) for m in (base, tuned))
    if {n: t.shape for n, t in ours.items()} != {n: t.shape for n, t in theirs.items()}:
        raise UsageError("the two models have other tensors: `extract` compares models of one shape, without adapters")
    layers = {
        where: layer
        for where, layer in lora_targets(base, config.targets).items()
        if not isinstance(layer, GroupedLinear)
    }
    parts: dict[str, Part] = {}
    shares: dict[str, float] = {}
    kept = 0.0
    for where, layer in progress(layers.items(), total=len(layers), label="extracting", unit="layer"):
        difference = base_weight(tuned.get_submodule(where)).float() - base_weight(layer).float()
        a, b, own, whole = best(difference, min(rank, *difference.shape))
        if whole:
            parts[where], shares[where] = _lora(layer, a, b), (own / whole) ** 0.5
            kept += own
    if not parts:
        raise UsageError("the models do not differ in any target: there is nothing to extract")
    squares = {n: _square(theirs[n], ours[n]) for n in ours}
    held = {f"{where}.weight" for where in parts}
    total = sum(squares.values()) or kept
    adapters_of(base).add(name, _config(parts), Plan(parts))
    return Extraction((kept / total) ** 0.5, shares, tuple(n for n, s in squares.items() if s and n not in held))


def best(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, float, float]:
    """A (r, in) and B (out, r) whose product is the nearest of this rank; the squared norms of it and of the whole."""
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    root = values[..., :rank].sqrt()
    squares = values.double().square()
    a, b = root[..., None] * v[..., :rank, :], u[..., :rank] * root[..., None, :]
    return a, b, float(squares[..., :rank].sum()), float(squares.sum())


def _square(tuned: Tensor, base: Tensor) -> float:
    return float((tuned.double() - base.double()).square().sum()) if base.is_floating_point() else 0.0


def _loras(adapters: Adapters, name: str) -> dict[str, LoRA]:
    adapters.check_known(name)
    if name in adapters.merged:
        raise UsageError(f"`{name}` is merged into the weights: unmerge it first")
    plan = adapters.plans[name]
    loras = {where: part for where, part in plan.parts.items() if isinstance(part, LoRA) and part.additive}
    if len(loras) != len(plan.parts) or plan.tensors:
        raise UsageError(
            f"`{name}` does more than add a product of two matrices: only plain LoRAs can be reckoned with"
        )
    return loras


def _lora(layer: nn.Module, a: Tensor, b: Tensor) -> LoRA:
    """A part that adds B A, with s = 1."""
    rank = a.shape[-2]
    part = LoRA(layer, LoRAConfig(), rank, 1.0)
    with torch.no_grad():
        part.lora_A.weight.copy_(a)
        part.lora_B.weight.copy_(b)
    return part


def _config(parts: dict[str, Any]) -> LoRAConfig:
    """Settings that tell what these parts are; their s is 1, so alpha is the rank."""
    ranks = {where: part.rank for where, part in parts.items()}
    rank = max(ranks.values())
    other = {where: r for where, r in ranks.items() if r != rank}
    return LoRAConfig(
        rank=rank, alpha=rank, targets=list(parts), ranks=other, alphas={where: float(r) for where, r in other.items()}
    )
