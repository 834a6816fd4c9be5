"""Loss on documents that are not trained on."""

import math
from collections.abc import Iterable
from typing import Any

import torch

from groundup.data.loader import in_order
from groundup.data.packing import Rows
from groundup.training.objectives.objective import Objective, corrupted, model_inputs


class HeldOut:
    """Measures an objective on held-out rows: a function for the `Evaluate` callback.

    Args:
        sources: the held-out rows by source.
        objective: its summed loss over its weight is `loss`.
        batch_size: rows at a time.
        max_batches: of each source, from the beginning; None measures all.
    """

    def __init__(
        self, sources: dict[str, Rows], objective: Objective, batch_size: int = 32, max_batches: int | None = None
    ):
        self.sources, self.objective = sources, objective
        self.batch_size, self.max_batches = batch_size, max_batches

    def __call__(self, model: Any) -> dict[str, float]:
        """Loss (nats per token), bits_per_byte of text whose bytes are known, and each source's loss of several."""
        total, weight, total_bits, total_bytes = 0.0, 0.0, 0.0, 0.0
        numbers: dict[str, float] = {}
        for name, rows in self.sources.items():
            loss, count = self._measure(model, rows)
            total, weight = total + loss, weight + count
            if len(self.sources) > 1 and count:
                numbers[f"loss/{name}"] = loss / count
            # Bits of the tokens measured, over the bytes that so many tokens of this source stand for on average.
            total_bits += loss / math.log(2)
            total_bytes += count * rows.tokens.num_bytes / max(1, len(rows.tokens))
        numbers = {"loss": total / weight if weight else math.nan, **numbers}
        if total_bytes and not hasattr(self.objective, "corrupt"):  # blanks and their ends are not the text
            numbers["bits_per_byte"] = total_bits / total_bytes
        return numbers

    @torch.no_grad()
    def _measure(self, model: Any, rows: Rows) -> tuple[float, float]:
        device = next(model.parameters()).device
        total = weight = 0.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # what an objective takes out of the text is the same in every evaluation
            for batch in self._batches(rows):
                batch = corrupted(self.objective, batch)
                batch = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
                batch = self.objective.prepare(batch)
                outputs = model(batch["ids"], head=self.objective.head(batch), **model_inputs(batch))
                loss, count, _ = self.objective.loss(outputs, batch)
                total, weight = total + float(loss), weight + float(count)
        return total, weight

    def _batches(self, rows: Rows) -> Iterable[dict[str, Any]]:
        for number, batch in enumerate(in_order(rows, self.batch_size)):
            if number == self.max_batches:
                return
            yield batch
