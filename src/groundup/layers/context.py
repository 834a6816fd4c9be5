"""What all layers of one forward call share; masks and rotary tables are computed once and kept here."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from groundup.layers.masks import Mask, MaskRule
from groundup.layers.rope import Rope

if TYPE_CHECKING:
    from groundup.state import Placement, State


@dataclass(eq=False)
class Context:
    """One forward call, as its layers see it.

    Attributes:
        positions: (B, T) or (1, T) int64, what position encodings count.
        documents: (B, T) int64 or None. 0 is padding; equal numbers attend to each other; a document is one run of
            equal numbers.
        state: what earlier calls left, or None.
        placement: where this call's tokens stand in the state, or None without one.
        shared: what one layer leaves for the later ones of this call, by name.
    """

    positions: Tensor
    documents: Tensor | None = None
    state: "State | None" = None
    placement: "Placement | None" = None
    shared: dict[str, Any] = field(default_factory=dict, repr=False)
    _masks: dict[MaskRule, Mask] = field(default_factory=dict, repr=False)
    _rotations: dict[tuple[Rope, torch.dtype], tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def mask(self, rule: MaskRule) -> Mask:
        """Which keys each query sees under `rule`."""
        if rule not in self._masks:
            self._masks[rule] = rule.build(self)
        return self._masks[rule]

    def rotation(self, rope: Rope, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines of `rope` at this call's positions, each (B or 1, T, 1, rotary width / 2)."""
        key = (rope, dtype)
        if key not in self._rotations:
            self._rotations[key] = rope.tables(self.positions, dtype)
        return self._rotations[key]

    @property
    def fresh(self) -> bool:
        """Whether the keys are exactly this call's tokens: nothing was remembered before it."""
        return self.placement is None or self.placement.fresh


def document_positions(documents: Tensor) -> Tensor:
    """Each token's number within its document, from 0; padding (document 0) gets 0. (B, T) -> (B, T)"""
    index = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    starts = torch.ones_like(documents, dtype=torch.bool)
    starts[:, 1:] = documents[:, 1:] != documents[:, :-1]
    start = torch.where(starts, index, 0).cummax(dim=1).values
    return torch.where(documents == 0, 0, index - start)
