"""Models that fill blanks (Du et al. 2022, GLM): a prompt is seen in both directions, and what is written after it
fills a blank in it.

    prompt   x1 x2 [MASK] x4 [START] y1 y2     y fills the blank; its positions stay at that of [MASK]
    prompt   x1 x2 x3 [gMASK] [START] y1 y2    y goes on at the end
    text     y1 y2 y3                          without marks all is seen from left to right

Marks are found in the ids. A prompt comes in one call, with or without a state, since its tokens see each other; a
caller may also give `positions` and `segments` (0 in the prompt), for several blanks in a text.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from groundup.layers.blank_infilling import Marks, find_marks
from groundup.layers.context import Context
from groundup.layers.masks import MaskRule, Prefix
from groundup.models.text.causal_lm import CausalLM
from groundup.state import RowValues, State


class BlankFilling(CausalLM):
    """The prompt, its blank and the positions, whatever the blocks are; the ids of the marks are the config's."""

    config: Any

    @property
    def paired(self) -> bool:
        """Whether a token has two positions, in the text and in the blank."""
        return True

    @property
    def prior_mask(self) -> int | None:
        """The mask that counts where several kinds occur; the first in the text where there is none."""
        return None

    def make_mask(self, i: int) -> MaskRule:
        return Prefix()

    def make_state(self, batch: int, max_len: int, spare: int = 0) -> State:
        state = super().make_state(batch, max_len, spare)
        state.layers["marks"] = RowValues()
        return state

    def arrange(self, x: Tensor, context: Context, given: bool) -> Context:
        positions = context.positions
        if given and context.segments is not None:
            return context
        if given and positions.ndim == 3:
            return replace(context, segments=(positions[..., 1] > 0).long())
        marks = self.marks(x, context)
        placed = positions if given else marks.pairs(positions) if self.paired else marks.single(positions)
        return replace(context, positions=placed, segments=marks.split(positions))

    def marks(self, x: Tensor, context: Context) -> Marks:
        """The marks of each document; those of the first call for later ones with a state."""
        places, documents, state = context.positions, context.documents, context.state
        remembered = None if state is None else state.layers["marks"]
        if remembered is not None and remembered.values:
            return Marks(**remembered.values)
        real, runs = None, None
        if documents is not None:
            real = documents != 0
            runs = None if state is not None else (documents.diff(dim=1, prepend=documents[:, :1]) != 0).cumsum(1)
        ids = x if not x.is_floating_point() else torch.full(x.shape[:2], -1, device=x.device)
        start, masks = self.config.bos_token_id, self.config.masks
        marks = find_marks(ids, places, runs, start=start, masks=masks, prior=self.prior_mask, real=real)
        if remembered is not None:
            remembered.values = marks._asdict()
        return marks
