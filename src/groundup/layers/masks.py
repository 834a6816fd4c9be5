"""Which keys a query may attend to.

A rule (`Causal`, `Bidirectional`, `Prefix`, ...) is a small frozen description that a layer holds; `build` turns it
into a `Mask` for one forward call. A mask is dense only where it must be: plain causal rows use the
kernels' own `is_causal`.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from groundup.base.errors import UsageError

if TYPE_CHECKING:
    from groundup.layers.context import Context


@dataclass(frozen=True, eq=False)
class Mask:
    """Either `causal` (query t sees keys 0..t of as many keys as queries) or `allowed`, (B or 1, 1 or H, T, S) bool.

    With neither, every query sees every key.

    Attributes:
        causal, allowed: who sees whom.
        bias: (B or 1, H, T, S) floating, added to the scores before softmax; where a mask has one, it is already minus
            infinity at every hidden key, so a kernel may add it and forget the rest.
    """

    causal: bool = False
    allowed: Tensor | None = None
    bias: Tensor | None = None

    def dense(self, queries: int, keys: int, device: torch.device) -> Tensor:
        """(B or 1, 1 or H, T, S) bool: True where the query may see the key."""
        if self.allowed is not None:
            return self.allowed
        every = torch.ones(1, 1, queries, keys, dtype=torch.bool, device=device)
        return every.tril() if self.causal else every

    def biased(self, bias: Tensor) -> "Mask":
        """This mask, with something added to the scores of the keys that are seen. bias (B or 1, H, T, S) floating"""
        if self.causal or self.allowed is not None:
            bias = torch.where(self.dense(bias.shape[-2], bias.shape[-1], bias.device), bias, -torch.inf)
        return replace(self, bias=bias)


class MaskRule(Protocol):
    """A frozen, hashable description of who sees whom."""

    def build(self, context: "Context") -> Mask:
        """The mask of one forward call."""
        ...

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class Causal:
    """Each token sees itself and what came before it in its document.

    Attributes:
        window: with a window of w, only the last w tokens, itself included (Beltagy et al. 2020; Mistral 7B 2023).
    """

    window: int | None = None

    def build(self, context: "Context") -> Mask:
        queries, keys = query_slots(context), key_slots(context)
        if self._plain(context, queries.shape[1], keys.shape[1]):
            return Mask(causal=context.fresh)
        distance = queries[:, None, :, None] - keys[:, None, None, :]  # (B|1, 1, T, S)
        allowed = distance >= 0
        if self.window is not None:
            allowed = allowed & (distance < self.window)
        return Mask(allowed=allowed & same_document(context))

    def _plain(self, context: "Context", num_queries: int, num_keys: int) -> bool:
        """Whether the kernels' own causal mask, or none at all, says the same."""
        if context.documents is not None or (self.window is not None and num_keys > self.window):
            return False
        if context.fresh:
            return True
        return num_queries == 1 and context.placement is not None and context.placement.start is not None


@dataclass(frozen=True)
class Bidirectional:
    """Each token sees all of its document, later tokens included (BERT)."""

    def build(self, context: "Context") -> Mask:
        if context.documents is None:
            return Mask()
        return Mask(allowed=same_document(context))


@dataclass(frozen=True)
class RightToLeft:
    """Each token sees itself and what comes after it in its document."""

    def build(self, context: "Context") -> Mask:
        _whole(context, "RightToLeft")
        return Mask(allowed=_ahead(context) & same_document(context))


@dataclass(frozen=True)
class Prefix:
    """The prefix of a row is seen by all of its row, the rest causally (Raffel et al. 2020, prefix language model).

    The prefix is where `segments` is 0; each row has its own length (`prefix_segments`). Without segments: causal.
    Steps with a cache see all before them, so a prefix comes in one call.
    """

    def build(self, context: "Context") -> Mask:
        if context.segments is None or not context.fresh:
            return Causal().build(context)
        prefix = (context.segments == 0)[:, None, None]  # (B, 1, 1, S)
        return Mask(allowed=(_behind(context) | prefix) & same_document(context))


@dataclass(frozen=True)
class UniLM:
    """UniLM's mask (Dong et al. 2019): what a token sees is decided by the segments, so the rows of one batch can be of
    its different objectives (`unilm_segments`).

        segment 0, source     seen by all of its row; sees the source alone     bidirectional; seq2seq's first part
        segment 1, target     seen by itself and later target tokens            left-to-right; seq2seq's second part
        segment 2, reverse    seen by itself and earlier reverse tokens         right-to-left
    """

    def build(self, context: "Context") -> Mask:
        if not context.fresh:
            return Causal().build(context)
        if context.segments is None:
            return Bidirectional().build(context)
        query, key = context.segments[:, None, :, None], context.segments[:, None, None]
        target = (key == 1) & (query == 1) & _behind(context)
        reverse = (key == 2) & (query == 2) & _ahead(context)
        return Mask(allowed=((key == 0) | target | reverse) & same_document(context))


@dataclass(frozen=True)
class BlankInfilling:
    """GLM's mask (Du et al. 2022): part A, the text with blanks, sees all of part A; part B, what stood in the blanks,
    sees part A and all of part B before it, earlier spans included.

    Part B is where the second of GLM's two positions is above 0 (`blank_infilling.py`). Positions without a second one
    are all part A: a prompt. Steps with a cache see all before them.
    """

    def build(self, context: "Context") -> Mask:
        if not context.fresh:
            return Causal().build(context)
        if context.positions.ndim == 2:
            return Bidirectional().build(context)
        part_a = (context.positions[..., 1] == 0)[:, None, None]  # (B or 1, 1, 1, S)
        return Mask(allowed=(_behind(context) | part_a) & same_document(context))


UNILM_MODES = ("bidirectional", "left_to_right", "right_to_left", "seq2seq")


def prefix_segments(lengths: Tensor, num_tokens: int) -> Tensor:
    """Segments of rows that begin with a prefix: 0 in it, 1 after it. lengths (B,) -> (B, T) int64"""
    return (torch.arange(num_tokens, device=lengths.device) >= lengths[:, None]).long()


def unilm_segments(modes: list[str], source_lengths: Tensor, num_tokens: int) -> Tensor:
    """Segments for `UniLM`, one mode a row; source_lengths (B,) count for `seq2seq` rows alone. -> (B, T) int64

    The paper takes a third of each batch bidirectional, a third seq2seq, and a sixth each left-to-right and reverse.
    """
    unknown = [mode for mode in modes if mode not in UNILM_MODES]
    if unknown:
        raise UsageError(f"no UniLM objective `{unknown[0]}`. One of: {', '.join(UNILM_MODES)}")
    ends = {"bidirectional": num_tokens, "left_to_right": 0, "right_to_left": 0}
    lengths = [ends.get(mode, int(n)) for mode, n in zip(modes, source_lengths, strict=True)]
    segments = prefix_segments(torch.tensor(lengths, device=source_lengths.device), num_tokens)
    reverse = torch.tensor([mode == "right_to_left" for mode in modes], device=segments.device)
    return segments + reverse[:, None].long()


def _behind(context: "Context") -> Tensor:
    """(1, 1, T, T) bool: the key is the query or stands before it."""
    slots = query_slots(context)
    return (slots[:, :, None] >= slots[:, None])[:, None]


def _ahead(context: "Context") -> Tensor:
    """(1, 1, T, T) bool: the key is the query or stands after it."""
    return _behind(context).mT


def _whole(context: "Context", name: str) -> None:
    if not context.fresh:
        raise UsageError(f"{name} sees tokens that are not there yet: it has no cache, give whole rows")


def query_slots(context: "Context") -> Tensor:
    """Where this call's tokens stand in their rows, (B or 1, T) int64."""
    if context.placement is not None and not context.placement.fresh:
        return context.placement.slots
    return torch.arange(context.positions.shape[1], device=context.positions.device)[None]


def key_slots(context: "Context") -> Tensor:
    """Where the keys stand in their rows, (B or 1, S) int64."""
    fresh = context.placement is None or context.placement.fresh
    if not fresh and context.placement.keys is not None:  # type: ignore[union-attr]
        return context.placement.keys  # type: ignore[union-attr]
    count = context.positions.shape[1] if fresh else context.placement.length  # type: ignore[union-attr]
    return torch.arange(count, device=context.positions.device)[None]


def same_document(context: "Context") -> Tensor:
    """(B or 1, 1, T, S) bool: query and key are of one document. Padding is a document of its own, so that no row of
    the mask is empty and softmax stays finite.
    """
    if context.documents is None or not context.fresh:
        return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=context.positions.device)
    documents = context.documents
    return (documents[:, :, None] == documents[:, None, :])[:, None]
