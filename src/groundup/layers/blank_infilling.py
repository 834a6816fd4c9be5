"""GLM's two positions of each token (Du et al. 2022, section 2.1).

    text            x1 x2 x3 x4 x5 x6, spans (x5 x6) and (x3) taken out, the second of them told first
    input           x1 x2 [M] x4 [M] | [S] x5 x6 [S] x3      part A | part B
    place in text    0  1  2   3  4  |  4   4  4  2   2      a span stands where its blank is
    place in blank   0  0  0   0  0  |  1   2  3  1   2      0 in part A: the model cannot know a blank's length
    target                             x5  x6 [E] x3 [E]

`masks.BlankInfilling` lets part A see part A, and part B see part A and what came before in part B; `rope.PairRope`
turns half of a head by each position.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from groundup.base.errors import UsageError


class Blanks(NamedTuple):
    """One text with blanks and what stood in them.

    Attributes:
        ids: (T,) int64, part A then part B.
        positions: (T, 2) int64, place in the text and place in the blank.
        targets: (T,) int64, -100 in part A.
        part_a: how many tokens part A has.
    """

    ids: Tensor
    positions: Tensor
    targets: Tensor
    part_a: int

    def single(self, runs_on: bool) -> Tensor:
        """One position of each token, (T,), GLM-130B's: in part B that of the blank, or counted on from part A's."""
        inside = self.positions[:, 1] > 0
        return torch.where(inside & runs_on, torch.arange(len(self.ids)), self.positions[:, 0])


def blank_infilling(
    ids: Sequence[int],
    spans: Sequence[tuple[int, int]],
    *,
    mask: int,
    start: int,
    end: int | None,
    order: Sequence[int] | None = None,
) -> Blanks:
    """Take spans out of a text and put them behind it.

    Args:
        ids: the text.
        spans: (first, after the last) of each span, from left to right, not overlapping.
        mask: the id of [MASK], which stands for a span in part A.
        start: the id of [START], which begins a span in part B.
        end: the id of [END], the target after a span; None where spans are cut off and have no end.
        order: in which order part B tells the spans, a permutation (shuffled in training); from left to right if None.

    Raises:
        UsageError: spans that overlap or do not lie in the text, or an order that is no permutation.
    """
    order = range(len(spans)) if order is None else order
    if sorted(order) != list(range(len(spans))):
        raise UsageError(f"the order {list(order)} is no permutation of {len(spans)} spans")
    part_a, blanks, at = [], [], 0
    for first, last in spans:
        if not at <= first < last <= len(ids):
            raise UsageError(
                f"span ({first}, {last}) overlaps another, is empty, or leaves a text of {len(ids)} tokens"
            )
        part_a += [*ids[at:first], mask]
        blanks.append(len(part_a) - 1)
        at = last
    part_a += ids[at:]
    tokens, targets = list(part_a), [-100] * len(part_a)
    places = [(i, 0) for i in range(len(part_a))]
    for k in order:
        span = list(ids[slice(*spans[k])])
        told = span if end is None else [*span, end]
        tokens += [start, *span][: len(told)]
        targets += told
        places += [(blanks[k], i + 1) for i in range(len(told))]
    told_ids, where, wanted = (torch.tensor(values, dtype=torch.int64) for values in (tokens, places, targets))
    return Blanks(told_ids, where.reshape(-1, 2), wanted, len(part_a))


class Marks(NamedTuple):
    """Where a row, or each document of a row, has its marks: places, (B, T) or (B, 1) int64.

    Attributes:
        start: of [START]; what comes before it is the prompt. 0 where there is none: all is part B.
        blank: of the mask that part B fills.
        runs_on: 1 where single positions run on in part B ([gMASK] at the end, or no mask), 0 where they stay.
    """

    start: Tensor
    blank: Tensor
    runs_on: Tensor

    def split(self, places: Tensor) -> Tensor:
        """Segments: 0 in the prompt, 1 from [START] on. (B or 1, T) -> (B, T)"""
        return (places >= self.start).long()

    def pairs(self, places: Tensor) -> Tensor:
        """The two positions of each token. (B or 1, T) -> (B, T, 2)"""
        inside = places - self.start + 1  # place in the blank
        return torch.where(
            (inside > 0)[..., None],
            torch.stack(torch.broadcast_tensors(self.blank, inside), -1),
            torch.stack((places.expand_as(inside), torch.zeros_like(inside)), -1),
        )

    def single(self, places: Tensor) -> Tensor:
        """One position of each token, GLM-130B's. (B or 1, T) -> (B, T)"""
        stays = (places >= self.start) & (self.runs_on == 0)
        return torch.where(stays, self.blank, places)


def find_marks(
    ids: Tensor,
    places: Tensor,
    runs: Tensor | None,
    *,
    start: int,
    masks: Sequence[int],
    prior: int | None = None,
    real: Tensor | None = None,
) -> Marks:
    """Look for a prompt's marks: `... [MASK] ... [START]` or `... [gMASK] [START]` (Zeng et al. 2022, section 2.1).

    Args:
        ids: (B, T) int64.
        places: (B or 1, T) int64, each token's place in its document.
        runs: (B, T) int64, the number of each token's document in its row from 0; None for one document a row.
        start: the id of [START]; masks mean nothing without it.
        masks: the ids of [MASK] and its like; the first in the text is the blank.
        prior: the id of [gMASK] where it counts before other masks, wherever it stands, and positions run on after it.
        real: (B, T) bool, False for padding.
    """

    def first(wanted: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The first place of any of these ids, and whether there is one."""
        none = ids.shape[1] + int(places.shape[1])
        hits = torch.stack([ids == one for one in wanted]).any(0)
        found = torch.where(hits if real is None else hits & real, places, none)
        if runs is None:
            least = found.amin(1, keepdim=True)
        else:
            least = torch.full_like(runs, none).scatter_reduce(1, runs, found, "amin").gather(1, runs)
        return least, least < none

    (begin, begins), (gap, gaps) = first([start]), first(masks)
    end, ends = (gap, torch.zeros_like(gaps)) if prior is None else first([prior])
    gaps, ends = gaps & begins, ends & begins
    begin = torch.where(begins, begin, 0)
    blank = torch.where(ends, end, torch.where(gaps, gap, (begin - 1).clamp(min=0)))
    return Marks(begin, blank, (ends | ~gaps).long())
