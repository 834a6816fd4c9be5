"""Low-rank adaptation (Hu et al. 2021): a frozen matrix learns by the product of two narrow ones.

    y = W x + s B A x        A (r, in) random, B (out, r) zero, s = alpha / r

What differs in its descendants:

    rsLoRA   s = alpha / sqrt(r)                                                          (Kalajdzievski 2023)
    DoRA     y = m / |W + s B A| (W + s B A) x     |.|: of each row; m (out,) learns      (Liu et al. 2024)
    PiSSA    y = W x + s (B A - B0 A0) x           B0 A0 = B A at first: the r largest    (Meng et al. 2024)
             singular values of s^-1 W, so that W - s B0 A0 is what stays frozen
    LoRA+    B learns faster than A                `training/optimizers/lora_plus.py`     (Hayou et al. 2024)

An embedding is a linear layer over one-hot vectors: A is (r, V) and picks columns. Experts have an A and a B each.
"""

import fnmatch
import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.adapters.configs.lora import LoRAConfig
from groundup.adapters.part import Part, base_weight, by_rows, placed_like
from groundup.adapters.plan import Plan, is_linear, named_by, targets
from groundup.base.errors import UsageError
from groundup.layers.moe.experts import GroupedLinear


class Factor(Protocol):
    """A or B: what it is multiplied with, and its numbers."""

    weight: Tensor

    def __call__(self, *args: Any) -> Tensor: ...


class LoRA(Part):
    """The two matrices at one linear layer. They keep float32 where the base is stored in fewer bits.

    Args:
        layer: what it stands on.
        config: dropout and the start; whether there is a magnitude.
        rank: r.
        scale: s.

    Attributes:
        lora_A: weight (r, in); experts: (E, r, in).
        lora_B: weight (out, r); experts: (E, out, r).
        lora_magnitude: m, (out,), or None.
        start_A, start_B: A0 and B0 of PiSSA, shaped as A and B, or None.
    """

    can_merge = True
    lora_A: Factor  # type: ignore[assignment]
    lora_B: Factor  # type: ignore[assignment]
    lora_magnitude: nn.Parameter | None
    start_A: Tensor | None
    start_B: Tensor | None

    def __init__(self, layer: nn.Module, config: LoRAConfig, rank: int, scale: float):
        super().__init__()
        self.rank, self.scale, self.dropout = rank, scale, config.dropout
        inner, outer = sizes(layer)
        where = placed_like(layer)
        if isinstance(layer, GroupedLinear):
            experts = len(layer.weight)
            self.lora_A = GroupedLinear(experts, inner, rank).to(**where)
            self.lora_B = GroupedLinear(experts, rank, outer).to(**where)
        else:
            self.lora_A = nn.Linear(inner, rank, bias=False, **where)
            self.lora_B = nn.Linear(rank, outer, bias=False, **where)
        self.register_buffer("start_A", None)
        self.register_buffer("start_B", None)
        self.register_parameter("lora_magnitude", None)
        self._begin(layer, config.init)
        if config.dora:
            length = row_lengths(base_weight(layer) + self.delta().to(base_weight(layer).dtype))
            self.lora_magnitude = nn.Parameter(length.to(**where))

    @torch.no_grad()
    def _begin(self, layer: nn.Module, how: str) -> None:
        a, b = self.lora_A.weight, self.lora_B.weight
        if how == "pissa":
            first, second = principal(base_weight(layer), self.rank, self.scale)
            a.copy_(first)
            b.copy_(second)
            self.start_A, self.start_B = a.detach().clone(), b.detach().clone()
            return
        moving, still = (b, a) if isinstance(layer, nn.Embedding) else (a, b)  # an embedding begins with A zero
        nn.init.zeros_(still)
        if how == "gaussian" or isinstance(layer, nn.Embedding):
            nn.init.normal_(moving, std=1 / self.rank if how == "gaussian" else 1.0)
        else:
            bound = moving.shape[-1] ** -0.5
            nn.init.uniform_(moving, -bound, bound)

    @property
    def additive(self) -> bool:
        return self.lora_magnitude is None

    def delta(self) -> Tensor:
        """What is added to the matrix: s (B A - B0 A0), (out, in) or (E, out, in)."""
        product = self.lora_B.weight @ self.lora_A.weight
        if self.start_A is not None and self.start_B is not None:
            product = product - self.start_B @ self.start_A
        return product * self.scale

    def after(self, base: nn.Module, args: tuple[Any, ...], y: Tensor) -> Tensor:
        update = self.update(base, args)
        if self.lora_magnitude is None:
            return y + update.to(y.dtype)
        bias = getattr(base, "bias", None)
        plain = y if bias is None else y - bias.to(y.dtype)
        gain = self.gain(base_weight(base))
        y = y + (gain - 1).to(y.dtype) * plain
        return y + (gain * update).to(y.dtype)

    def update(self, base: nn.Module, args: tuple[Any, ...]) -> Tensor:
        """S (B A - B0 A0) x, for what the layer is called with."""
        x, *rest = args
        if isinstance(base, nn.Embedding):
            inner = F.dropout(F.embedding(x, self.lora_A.weight.T, base.padding_idx), self.dropout, self.training)
        else:
            x = F.dropout(x.to(self.lora_A.weight.dtype), self.dropout, self.training)
            inner = self.lora_A(x, *rest)
        update = self.lora_B(inner, *rest)
        if self.start_A is not None and self.start_B is not None:
            update = update - self._start(base, x, rest)
        return update * self.scale

    def _start(self, base: nn.Module, x: Tensor, rest: Sequence[Any]) -> Tensor:
        """B0 A0 x"""
        a, b = self.start_A, self.start_B
        assert a is not None and b is not None
        if isinstance(base, nn.Embedding):
            return F.linear(F.embedding(x, a.T, base.padding_idx), b)
        return F.linear(F.linear(x, a), b)

    def gain(self, weight: Tensor) -> Tensor:
        """DoRA's m / |W + s B A|, (out,); the length counts as a constant for the gradient (section 4.3)."""
        with torch.no_grad():
            length = row_lengths(weight.to(self.lora_A.weight.dtype) + self.delta())
        return self.lora_magnitude / length  # type: ignore[operator]

    def merged(self, weight: Tensor, base: Tensor) -> Tensor:
        weight = weight + self.delta().to(torch.promote_types(weight.dtype, torch.float32))
        return weight if self.lora_magnitude is None else self.gain(base)[:, None] * weight

    @classmethod
    def after_rows(
        cls, parts: Sequence["Part | None"], rows: Tensor, base: nn.Module, args: tuple[Any, ...], y: Any
    ) -> Any:
        """Two batched products for the whole batch, whatever adapters its rows use: ranks are padded with zeros.

        u_b = B_b A_b x_b
        """
        loras: list[LoRA | None] = parts  # type: ignore[assignment]
        x, y = by_rows(base, rows, args[0]), by_rows(base, rows, y)
        different = any(
            part is not None and (part.lora_magnitude is not None or (part.training and part.dropout)) for part in loras
        )
        if different or isinstance(base, nn.Embedding):
            return super().after_rows(parts, rows, base, (x, *args[1:]), y)
        a, b = stacked(loras)
        x = x.to(a.dtype)
        inner = torch.bmm(x.flatten(1, -2), a[rows].mT)  # (B, T, r)
        return y + torch.bmm(inner, b[rows].mT).view(y.shape).to(y.dtype)


def stacked(parts: Sequence[LoRA | None]) -> tuple[Tensor, Tensor]:
    """The As and the scaled Bs side by side, (N + 1, r, in) and (N + 1, out, r); the last, which -1 picks, is zero."""
    pairs = [factors(part) if part is not None else None for part in parts]
    like = next(pair for pair in pairs if pair is not None)
    rank = max(len(pair[0]) for pair in pairs if pair is not None)
    a = like[0].new_zeros(len(parts) + 1, rank, like[0].shape[1])
    b = like[1].new_zeros(len(parts) + 1, like[1].shape[0], rank)
    for number, pair in enumerate(pairs):
        if pair is not None:
            a[number, : len(pair[0])], b[number, :, : len(pair[0])] = pair
    return a, b


def factors(part: LoRA) -> tuple[Tensor, Tensor]:
    """A and s B of a part; with a start, twice as wide: s (B A - B0 A0) = s [B, -B0] [A; A0]."""
    a, b = part.lora_A.weight, part.lora_B.weight
    if part.start_A is not None and part.start_B is not None:
        a, b = torch.cat((a, part.start_A), dim=-2), torch.cat((b, -part.start_B), dim=-1)
    return a, b * part.scale


def sizes(layer: nn.Module) -> tuple[int, int]:
    """Width of what goes in and of what comes out: (V, D) for an embedding."""
    if isinstance(layer, nn.Embedding):
        return layer.num_embeddings, layer.embedding_dim
    if isinstance(layer, GroupedLinear):
        return layer.weight.shape[2], layer.weight.shape[1]
    return layer.in_features, layer.out_features  # type: ignore[return-value]


def row_lengths(weight: Tensor) -> Tensor:
    """|w_i|, the length of each row. (out, in) -> (out,)"""
    return torch.linalg.vector_norm(weight, dim=1)


def principal(weight: Tensor, rank: int, scale: float) -> tuple[Tensor, Tensor]:
    """A (r, in) and B (out, r) with s B A = the r largest singular values of W: A = sqrt(S/s) V^T, B = U sqrt(S/s)."""
    u, values, v = torch.linalg.svd(weight.float(), full_matrices=False)
    root = (values[:rank] / scale).sqrt()
    return root[:, None] * v[:rank], u[:, :rank] * root


# -- where it goes ----------------------------------------------------------------------------------------------------


def plan(model: nn.Module, config: LoRAConfig) -> Plan:
    """LoRA on every target, and the base's tensors that learn beside it."""
    layers = lora_targets(model, config.targets)
    for pattern in (*config.ranks, *config.alphas):
        if not any(named_by(pattern, name) for name in layers):
            raise UsageError(f"`ranks` and `alphas` name `{pattern}`, which is none of the targets")
    parts: dict[str, Part] = {}
    for name, layer in layers.items():
        rank, scale = settings(config, name)
        refuse(name, layer, config, rank)
        parts[name] = LoRA(layer, config, rank, scale)
    return Plan(parts, base_tensors(model, config, list(layers)))


def lora_targets(model: nn.Module, wanted: Sequence[str]) -> dict[str, nn.Module]:
    """The linear layers, experts and embedding tables that targets name. A table outside `embed` is read by its layer
    itself, without a call, so nothing can stand at it.
    """
    tables = {id(m) for name, m in model.named_modules() if name.startswith("embed.") and isinstance(m, nn.Embedding)}

    def fits(module: nn.Module) -> bool:
        return is_linear(module) or isinstance(module, GroupedLinear) or id(module) in tables

    return targets(model, wanted, fits, "linear layers, experts or embeddings")


def settings(config: LoRAConfig, name: str) -> tuple[int, float]:
    """Rank and s of a target."""
    rank = next((r for pattern, r in config.ranks.items() if named_by(pattern, name)), config.rank)
    alpha = next((a for pattern, a in config.alphas.items() if named_by(pattern, name)), config.alpha)
    return rank, alpha / (math.sqrt(rank) if config.rslora else rank)


def refuse(name: str, layer: nn.Module, config: LoRAConfig, rank: int) -> None:
    """Raise where a layer cannot have what is asked for."""
    experts = isinstance(layer, GroupedLinear)
    if experts and (config.dora or config.init == "pissa"):
        what = "DoRA" if config.dora else "PiSSA"
        raise UsageError(f"{name} holds experts, and {what} is for single matrices: leave them out of `targets`")
    if config.dora and config.init == "pissa":
        raise UsageError("`dora` and `init: pissa` both set how W is cut up: choose one")
    if config.init == "pissa":
        if isinstance(layer, nn.Embedding):
            raise UsageError(f"{name} is an embedding, and PiSSA is for linear layers: leave it out of `targets`")
        if rank > min(sizes(layer)):
            raise UsageError(f"{name} has {min(sizes(layer))} singular values: PiSSA cannot take {rank} of them")


def base_tensors(model: nn.Module, config: LoRAConfig, layers: Sequence[str]) -> tuple[str, ...]:
    """Names of the base's tensors that learn: biases, and all of `modules_to_save`."""
    known = [name for name, _ in model.named_parameters() if ".adapters." not in name]
    wanted: list[str] = []
    if config.bias == "all":
        wanted += [name for name in known if name.endswith(".bias")]
    elif config.bias == "lora_only":
        wanted += [f"{layer}.bias" for layer in layers if f"{layer}.bias" in known]
    for pattern in config.modules_to_save:
        found = [name for name in known if named_by(pattern, name.rpartition(".")[0]) or _inside(pattern, name)]
        if not found:
            why = "is tied to the embedding: name `embed`" if pattern == "lm_head" else "has no tensor of its own"
            raise UsageError(f"`modules_to_save`: `{pattern}` {why}")
        wanted += found
    return tuple(dict.fromkeys(wanted))


def _inside(pattern: str, name: str) -> bool:
    return name.startswith(pattern + ".") or fnmatch.fnmatchcase(name, f"*.{pattern}.*")
