"""What all layers of one forward call share; masks and rotary tables are computed once and kept here."""

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from groundup.layers.masks import Mask, MaskRule
from groundup.layers.rope import Rope
from groundup.layers.sequences import Sequences

if TYPE_CHECKING:
    from groundup.layers.position_bias import PositionBias
    from groundup.state import LayerState, Placement, State


@dataclass(eq=False)
class Context:
    """One forward call, as its layers see it.

    Attributes:
        positions: (B, T) or (1, T) int64, what position encodings count; with a last dimension of 2 for GLM's pairs.
        documents: (B, T) int64 or None. 0 is padding; equal numbers attend to each other; a document is one run of
            equal numbers.
        state: what earlier calls left, or None.
        placement: where this call's tokens stand in the state, or None without one.
        segments: (B, T) int64 or None, parts of a row: sentence A and B, source and target.
        source: (B, S, E), what cross-attention reads, or None.
        source_documents: (B, S) int64 or None. 0 is padding of the source.
        ids: (B, T) int64 or None. Where vectors are given with tokens among them: the tokens' ids, -1 for others.
        ahead: (B or 1, 1) int64 or 0: positions that are taken before the text, by a prefix of keys and values.
        shared: what one layer leaves for the later ones of this call, by name.
    """

    positions: Tensor
    documents: Tensor | None = None
    state: "State | None" = None
    placement: "Placement | None" = None
    segments: Tensor | None = None
    source: Tensor | None = None
    source_documents: Tensor | None = None
    ids: Tensor | None = None
    ahead: Tensor | int = 0
    shared: dict[str, Any] = field(default_factory=dict, repr=False)
    _masks: dict[Hashable, Mask] = field(default_factory=dict, repr=False)
    _rotations: dict[tuple[Rope, torch.dtype], tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)
    _views: dict[tuple[int, int], "Context"] = field(default_factory=dict, repr=False)
    _sequences: dict[bool, Sequences] = field(default_factory=dict, repr=False)

    def mask(self, rule: MaskRule, bias: "PositionBias | None" = None) -> Mask:
        """Which keys each query sees under `rule`, and what `bias` adds to their scores."""
        if bias is not None:
            return self._biased(rule, bias)
        if rule not in self._masks:
            self._masks[rule] = rule.build(self)
        return self._masks[rule]

    def _biased(self, rule: MaskRule, bias: "PositionBias") -> Mask:
        key = (rule, bias.key())
        if key in self._masks:
            return self._masks[key]
        mask = self.mask(rule).biased(bias(self))
        if mask.bias is not None and not mask.bias.requires_grad:
            # One with a gradient is made anew in each layer: activation checkpointing runs a layer twice, and both
            # runs must do the same.
            self._masks[key] = mask
        return mask

    def rotation(self, rope: Rope, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines of `rope` at this call's positions, each (B or 1, T, 1, rotary width / 2)."""
        key = (rope, dtype)
        if key not in self._rotations:
            self._rotations[key] = rope.tables(self.positions, dtype)
        return self._rotations[key]

    def through(self, memory: "LayerState") -> "Context":
        """The same call for a layer whose memory gives back other keys than those of slots 0, 1, ...: a rolling one."""
        ring = getattr(memory, "ring", None)
        if ring is None or self.fresh:
            return self
        if ring not in self._views:
            placement = replace(self.placement, keys=memory.keys(self.placement))  # type: ignore[type-var, attr-defined]
            self._views[ring] = replace(self, placement=placement, _masks={}, _views={})
        return self._views[ring]

    def sequences(self, shape: tuple[int, int], backwards: bool = False) -> Sequences:
        """The documents of this call's rows, (B, T) = shape, as sequences for a recurrent layer."""
        if False not in self._sequences:
            self._sequences[False] = Sequences.of(shape, self.documents, self.positions.device)
        if backwards and True not in self._sequences:
            self._sequences[True] = self._sequences[False].backwards()
        return self._sequences[backwards]

    @property
    def places(self) -> Tensor:
        """Each token's place in its text, (B or 1, T): its position, but for what is taken before the text."""
        return self.positions - self.ahead

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
