"""Settings of BitFit and of partial fine-tuning. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from groundup.adapters.config import AdapterConfig

if TYPE_CHECKING:
    from groundup.adapters.plan import Plan


class BitFitConfig(AdapterConfig):
    """BitFit (Ben Zaken et al. 2022): the biases learn, and nothing else."""

    kind: Literal["bitfit"] = "bitfit"

    def plan(self, model: Any, name: str) -> Plan:
        from groundup.adapters.partial import bitfit

        return bitfit(model)


class PartialConfig(AdapterConfig):
    """Fine-tune some of the base's own tensors; the adapter keeps its version of them, the base's comes back."""

    kind: Literal["partial"] = "partial"
    train: list[str] = ["head", "norm", "last:1"]
    """What learns: `head`, `norm` (the final one), `last:N` (the last N blocks), `all`, or patterns of tensors' names
    (`blocks.*.mlp.*`). A head that is tied to the embedding learns together with it."""

    def plan(self, model: Any, name: str) -> Plan:
        from groundup.adapters.partial import partial

        return partial(model, self.train)
