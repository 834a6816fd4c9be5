"""AdaLoRA: low-rank adaptation that spends its ranks where they matter (Zhang et al. 2023).

y = W x + s P diag(l) Q x        Q (r, in), P (out, r) Gaussian, l (r) zero, s = alpha / r

P and Q are kept near orthogonal by a penalty, so that l are singular values and can be dropped one by one:

    R = mean over all P and Q of |P^T P - 1|_F, |Q Q^T - 1|_F

How much a weight w with gradient g matters is its sensitivity times the sensitivity's uncertainty, both as running
means, and a triplet (column of P, l, row of Q) counts as a whole:

    I = |w g|        I' = b1 I' + (1 - b1) I        U' = b2 U' + (1 - b2) |I - I'|
    S_i = I'U'(l_i) + mean_j I'U'(P_ji) + mean_j I'U'(Q_ij)

The budget of all layers together falls with the cube of the time that is left:

    b(t) = b_end + (b_0 - b_end) (1 - (t - t_warmup) / (T - t_final - t_warmup))^3

and every singular value whose S is not among the b(t) largest of the model is set to zero.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.adapters.configs.adalora import AdaLoRAConfig
from groundup.adapters.part import Part, placed_like
from groundup.adapters.penalty import num_tokens, penalised
from groundup.adapters.plan import Plan, is_linear, targets
from groundup.base.errors import UsageError

Gradients = dict[Tensor, Tensor]


class AdaLoRA(Part):
    """The triplets at one linear layer.

    Args:
        layer: what it stands on.
        config: rank, alpha, dropout.

    Attributes:
        lora_A, lora_E, lora_B: Q (r, in), l (r, 1) and P (out, r), by the names that files use.
        kept: (r,) bool, the triplets that were chosen last.
        sensitivity_A, uncertainty_A, ...: I' and U' of each of the three.
    """

    can_merge = True
    kept: Tensor

    def __init__(self, layer: Any, config: AdaLoRAConfig):
        super().__init__()
        where, rank = placed_like(layer), config.rank
        self.lora_A = nn.Parameter(torch.empty(rank, layer.in_features, **where).normal_(std=0.02))
        self.lora_E = nn.Parameter(torch.zeros(rank, 1, **where))
        self.lora_B = nn.Parameter(torch.empty(layer.out_features, rank, **where).normal_(std=0.02))
        # peft divides by r + 1e-5, and files carry its weights.
        self.dropout, self.scale = config.dropout, config.alpha / (rank + 1e-5)
        self.register_buffer("kept", torch.ones(rank, dtype=torch.bool, device=where["device"]))
        for name, weight in self.triplets().items():
            self.register_buffer(f"sensitivity_{name}", torch.zeros_like(weight))
            self.register_buffer(f"uncertainty_{name}", torch.zeros_like(weight))

    def triplets(self) -> dict[str, nn.Parameter]:
        """Q, l and P."""
        return {"A": self.lora_A, "E": self.lora_E, "B": self.lora_B}

    def after(self, base: nn.Module, args: tuple[Any, ...], y: Tensor) -> Tensor:
        x = F.dropout(args[0].to(self.lora_A.dtype), self.dropout, self.training)
        return y + (x @ (self.lora_A * self.lora_E).T @ self.lora_B.T * self.scale).to(y.dtype)

    def delta(self) -> Tensor:
        """What is added to the matrix: s P diag(l) Q. (out, in)"""
        return self.lora_B @ (self.lora_A * self.lora_E) * self.scale

    @property
    def additive(self) -> bool:
        return True

    def merged(self, weight: Tensor, base: Tensor) -> Tensor:
        return weight + self.delta().to(weight.dtype)

    def distance(self) -> Tensor:
        """|P^T P - 1|_F + |Q Q^T - 1|_F, a scalar."""
        one = torch.eye(len(self.lora_E), device=self.lora_E.device, dtype=self.lora_E.dtype)
        return (self.lora_A @ self.lora_A.T - one).norm() + (self.lora_B.T @ self.lora_B - one).norm()

    @torch.no_grad()
    def observe(self, gradients: dict[str, Tensor], beta1: float, beta2: float) -> None:
        """Renew I' and U' from the gradients of A, E and B."""
        for name, weight in self.triplets().items():
            mean, spread = self.get_buffer(f"sensitivity_{name}"), self.get_buffer(f"uncertainty_{name}")
            now = (weight * gradients[name]).abs().to(mean.dtype)
            mean.mul_(beta1).add_(now * (1 - beta1))
            spread.mul_(beta2).add_((now - mean).abs() * (1 - beta2))

    def scores(self) -> Tensor:
        """S, how much each triplet matters. (r,)"""
        a, e, b = (self.get_buffer(f"sensitivity_{n}") * self.get_buffer(f"uncertainty_{n}") for n in "AEB")
        return e[:, 0] + (a.mean(1) + b.mean(0))

    @torch.no_grad()
    def mask(self) -> None:
        """Set the singular values that were not chosen to zero."""
        self.lora_E.masked_fill_(~self.kept[:, None], 0.0)


class Allocator(Part):
    """What all triplets of an adapter share: the penalty, which enters the loss here, and the budget.

    It stands on the last block, and the training loop tells it of gradients (`see_gradients`) and of the end of each
    step (`end_step`), on every rank alike.

    Args:
        layers: the parts at the linear layers.
        config: the phases.
    """

    can_merge = only_trains = True
    step: Tensor

    def __init__(self, layers: Sequence[AdaLoRA], config: AdaLoRAConfig):
        super().__init__()
        self._layers, self.config = tuple(layers), config  # in a tuple: they are children of their own layers
        self._seen: list[dict[str, Tensor]] | None = None
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    # -- the penalty --------------------------------------------------------------------------------------------------

    def after(self, base: nn.Module, args: tuple[Any, ...], y: Tensor) -> Tensor:
        if not (self.training and self.config.orthogonality and self._layers[0].lora_A.requires_grad):
            return y
        penalty = sum(layer.distance() for layer in self._layers) / (2 * len(self._layers))
        return penalised(y, self.config.orthogonality * penalty, num_tokens(args))  # type: ignore[arg-type]

    @classmethod
    def after_rows(
        cls, parts: Sequence[Part | None], rows: Tensor, base: nn.Module, args: tuple[Any, ...], y: Any
    ) -> Any:
        for part in parts:
            y = y if part is None else part.after(base, args, y)
        return y

    # -- the budget ---------------------------------------------------------------------------------------------------

    def budget(self, step: int) -> int:
        """b(t), how many singular values all layers together have after this step."""
        c = self.config
        first, last = c.rank * len(self._layers), c.target_rank * len(self._layers)
        if step <= c.warmup:
            return first
        left = max(0.0, 1 - (step - c.warmup) / (c.steps - c.final - c.warmup))
        return int((first - last) * left**3 + last)

    def see_gradients(self, of: Callable[[Tensor], Tensor | None], scale: float) -> None:
        """Before the weights change: keep the gradients, times `scale`."""
        found = [{name: of(w) for name, w in layer.triplets().items()} for layer in self._layers]
        complete = all(gradient is not None for layer in found for gradient in layer.values())
        self._seen = [{n: g * scale for n, g in layer.items()} for layer in found] if complete else None  # type: ignore[operator]

    def end_step(self, applied: bool, sum_: Any = None) -> None:
        """After the weights changed: weigh the triplets, and choose among them when it is time."""
        if not applied or self._seen is None:
            return
        self.advance(self._seen)
        self._seen = None

    def advance(self, gradients: Sequence[dict[str, Tensor]]) -> None:
        """One step of the schedule, with the gradients of A, E and B of each layer."""
        c = self.config
        self.step += 1
        step, end = int(self.step), c.steps - c.final
        if step < end:
            for layer, gradient in zip(self._layers, gradients, strict=True):
                layer.observe(gradient, c.beta1, c.beta2)
        if step == end or (c.warmup < step < end and step % c.every == 0):
            self.choose(self.budget(step))
        if step >= end or (step > c.warmup and step % c.every == 0):
            for layer in self._layers:
                layer.mask()

    def choose(self, budget: int) -> None:
        """Keep the triplets with the largest scores in all layers together."""
        scores = [layer.scores() for layer in self._layers]
        dropped = sum(len(score) for score in scores) - budget
        if dropped <= 0:
            return
        threshold = torch.cat(scores).kthvalue(dropped)[0]
        for layer, score in zip(self._layers, scores, strict=True):
            layer.kept.copy_(score > threshold)

    def ranks(self) -> list[int]:
        """How many triplets each layer has left."""
        return [int(layer.kept.sum()) for layer in self._layers]


def plan(model: nn.Module, config: AdaLoRAConfig) -> Plan:
    """Triplets at every target, and on the last block what they share."""
    parts: dict[str, Part] = {}
    for name, layer in targets(model, config.targets, is_linear).items():
        parts[name] = AdaLoRA(layer, config)
    blocks = list(getattr(model, "blocks", ()))
    if not blocks:
        raise UsageError("AdaLoRA's penalty enters at a block, and this model has none")
    place = f"blocks.{blocks[-1]}"
    if place in parts:
        raise UsageError(f"{place} is itself a linear layer: AdaLoRA has no place for its penalty")
    return Plan({**parts, place: Allocator(list(parts.values()), config)})  # type: ignore[arg-type]
