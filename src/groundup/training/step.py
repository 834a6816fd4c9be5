"""One update: gradients of a batch in micro-batches, summed over ranks, clipped, checked, applied.

With loss sums L_i and weights W_i of the micro-batches i of all ranks,

    loss = sum L_i / sum W_i        gradient = sum grad(L_i) / sum W_i

so any split of the rows gives the same loss and gradient (to rounding). Dividing each micro-batch by its own weight and
averaging would not: micro-batches with few trained tokens would count too much. The division by the weights and the
clipping are one factor, which the optimizer applies while it reads the gradients.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from groundup.base.console import warn
from groundup.layers.moe.losses import scaled
from groundup.training.averaging import EMA
from groundup.training.clipping import global_norm
from groundup.training.distributed import Workers
from groundup.training.feed import num_rows, take_rows
from groundup.training.objectives.cross_entropy import IGNORED
from groundup.training.objectives.objective import Batch, Objective, corrupted, model_inputs
from groundup.training.optimizers.base import Optimizer
from groundup.training.precision import PrecisionConfig


@dataclass
class StepResult:
    """What one update did; all numbers are over all ranks."""

    loss: float
    weight: float
    grad_norm: float
    tokens: int
    trained: int
    positions: int
    applied: bool
    metrics: dict[str, float] = field(default_factory=dict)


class Step:
    """Makes updates.

    Args:
        forward: the model, or a compiled form of it.
        model: the model itself.
        micro_batch_size: rows in one forward pass; None for all.
        clip: largest global gradient norm, or None.

    Attributes:
        loss_limit: a step with a loss above it is left out, as one that is not finite.
    """

    def __init__(
        self,
        forward: Callable[..., Any],
        model: nn.Module,
        objective: Objective,
        optimizer: Optimizer,
        precision: PrecisionConfig,
        workers: Workers,
        *,
        micro_batch_size: int | None = None,
        clip: float | None = None,
        ema: EMA | None = None,
    ):
        self.forward, self.model, self.objective, self.optimizer = forward, model, objective, optimizer
        self.precision, self.workers, self.clip, self.ema = precision, workers, clip, ema
        self.scaler = precision.scaler()
        self.loss_limit = math.inf
        # Modules that learn from counts in place of gradients (biases of experts) change with the weights.
        self._counting: list[Any] = [module for module in model.modules() if hasattr(module, "end_step")]
        # Modules that learn from gradients besides the optimizer (ranks of AdaLoRA) see them before the weights change.
        self._watching: list[Any] = [module for module in model.modules() if hasattr(module, "see_gradients")]
        self.micro_batch_size, self._may_halve = micro_batch_size, micro_batch_size is None

    def __call__(self, batch: Batch) -> StepResult:
        """Update the model with this rank's rows; the learning rate is the one in the optimizer."""
        batch = {name: self._to_device(value) for name, value in corrupted(self.objective, batch).items()}
        counts = self.workers.sum(count_tokens(batch))
        expected = counts[1] or counts[0]  # the weight of next-token objectives; others differ by a factor
        with scaled(self._auxiliary_scale(expected, counts[0])):
            sums = self._gradients(batch, expected)
        names, values = list(sums), [float(value) for value in sums.values()]
        totals = dict(zip(names, self.workers.sum(values), strict=True))
        result = self._apply(totals, expected)
        result.tokens, result.trained, result.positions = (int(count) for count in counts)
        return result

    # -- gradients ----------------------------------------------------------------------------------------------------

    def _gradients(self, batch: Batch, expected: float) -> dict[str, Tensor]:
        """Gradients of the (`_divided`) loss sum into the optimizer; the sums of loss, weight and metrics."""
        while True:
            try:
                return self._accumulate(batch, expected)
            except torch.OutOfMemoryError:
                rows = self.micro_batch_size or num_rows(batch)
                if not self._may_halve or rows <= self.objective.rows_together:
                    raise
                self.optimizer.zero_grad()
                self.micro_batch_size = max(rows // 2, self.objective.rows_together)
                warn(f"out of memory: micro-batches of {self.micro_batch_size} rows from now on, same gradient")

    def _accumulate(self, batch: Batch, expected: float) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        for part in micro_batches(batch, self.micro_batch_size, self.objective.rows_together):
            with torch.no_grad():
                part = self.objective.prepare(part)
            with self.precision.autocast(self.workers.device.type):
                outputs = self.forward(part["ids"], head=self.objective.head(part), **model_inputs(part))
                loss, weight, metrics = self.objective.loss(outputs, part)
            self.scaler.scale_loss(self._divided(loss, expected)).backward()
            self.optimizer.gather()
            for name, value in {"loss": loss, "weight": weight, **metrics}.items():
                value = value.detach().to(torch.float32 if value.device.type == "mps" else torch.float64)
                sums[name] = sums[name] + value if name in sums else value
        return sums

    def _divided(self, loss: Tensor, expected: float) -> Tensor:
        """Only fp16 lacks the range for the gradient of a sum; a factor of 1 saves a pass over the head's gradient."""
        return loss / expected if self.precision.dtype == "fp16" else loss

    def _auxiliary_scale(self, expected: float, tokens: float) -> float:
        """For losses inside the model (experts' loads): they are sums over tokens, the objective's over its weight."""
        divided = 1 / expected if self.precision.dtype == "fp16" and expected else 1.0
        return divided * self.scaler.scale * (expected / tokens if tokens else 0.0)

    # -- the update ---------------------------------------------------------------------------------------------------

    def _apply(self, totals: dict[str, float], expected: float) -> StepResult:
        weight = totals.pop("weight")
        loss = totals.pop("loss") / weight if weight else math.nan
        self._sum_gradients()
        gradients = self.optimizer.gradients()
        finite = self.scaler.unscale(gradients)
        share = (expected if self.precision.dtype == "fp16" else 1.0) / weight if weight else math.nan
        norm = float(global_norm(gradients)) * share
        applied = finite and math.isfinite(norm) and math.isfinite(loss) and loss <= self.loss_limit
        if applied:
            # g <- g share min(1, clip / |g share|)
            scale = share * clip_factor(norm, self.clip)
            for module in self._watching:
                module.see_gradients(self.optimizer.gradient_of, scale)
            self.optimizer.step(scale=scale)
            if self.ema is not None:
                self.ema.update()
        for module in self._counting:
            module.end_step(applied, self.workers.sum_)
        self.scaler.update()
        self.optimizer.zero_grad()
        metrics = {name: value / weight for name, value in totals.items()} if weight else {}
        return StepResult(loss, weight, norm, 0, 0, 0, applied, metrics)

    def _sum_gradients(self) -> None:
        """Add the gradients over the ranks; a tensor that only some ranks used has a zero gradient on the others."""
        if self.workers.size == 1:
            return
        storages = [storage for storages in self.optimizer.storages for storage in storages]
        present = [held for storage in storages for held in storage.present()]
        anywhere = self.workers.sum([float(held) for held in present])
        parameters = [parameter for storage in storages for parameter in storage.parameters]
        for parameter, here, ranks in zip(parameters, present, anywhere, strict=True):
            if ranks and not here:
                parameter.grad = torch.zeros_like(parameter)
        self.optimizer.gather()
        self.workers.sum_(self.optimizer.gradients())

    def _to_device(self, value: Any) -> Any:
        return value.to(self.workers.device, non_blocking=True) if isinstance(value, Tensor) else value


def clip_factor(norm: float, clip: float | None) -> float:
    """min(1, clip / norm): 1 for a norm that is not finite, whose step is left out anyway."""
    return clip / norm if clip is not None and math.isfinite(norm) and norm > clip else 1.0


def micro_batches(batch: Batch, size: int | None, together: int = 1) -> Iterator[Batch]:
    """The batch's rows in pieces of at most `size`, groups of `together` rows unbroken."""
    rows = num_rows(batch)
    size = rows if size is None else max(together, size // together * together)
    for start in range(0, rows, size):
        yield take_rows(batch, start, start + size)


def count_tokens(batch: Batch) -> list[float]:
    """[input tokens without padding, trained labels, all positions]."""
    ids, labels, documents = batch["ids"], batch.get("labels"), batch.get("documents")
    positions = ids.shape[0] * ids.shape[1]
    tokens = positions if documents is None else int((documents != 0).sum())
    trained = 0 if labels is None else int((labels != IGNORED).sum())
    return [float(tokens), float(trained), float(positions)]
