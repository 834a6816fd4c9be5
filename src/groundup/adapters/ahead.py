"""What adapters put ahead of the tokens of every document: vectors in their midst (soft prompts), or a number of
positions that count as taken (prefixes of keys and values).

    row        a b c | d e            two documents
    laid out   p q a b c | p q d e    a prompt of two vectors before each
    result     a b c | d e            the model's answer for the given tokens alone

The one object of this kind in a model is `model.prompt`, with a child for each adapter that has something to put there.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.adapters.part import Selection
from groundup.base.errors import UsageError
from groundup.layers.context import Context
from groundup.layers.embedding import Embedding


class Ahead(nn.Module):
    """What one adapter puts ahead.

    Attributes:
        inserted: vectors before the tokens of a document.
        taken: positions that count as taken before a document without a vector standing there.
    """

    inserted: int = 0
    taken: int = 0

    def vectors(self) -> Tensor:
        """The vectors, (inserted, D)."""
        raise NotImplementedError


@dataclass
class Laid:
    """The tokens of a call with vectors between them.

    Attributes:
        ids: (B, T') int64, -1 for what is not a token; or vectors where those were given.
        vectors: (B, T', D).
        positions, documents, segments: as the call's, for T' places; None where they were.
        places: (B, T) int64, where the given tokens stand.
    """

    ids: Tensor
    vectors: Tensor
    positions: Tensor | None
    documents: Tensor | None
    segments: Tensor | None
    places: Tensor

    def given(self, hidden: Tensor) -> Tensor:
        """The vectors of the given tokens. (B, T', D) -> (B, T, D)"""
        return hidden.gather(1, self.places[..., None].expand(-1, -1, hidden.shape[-1]))


class Table(NamedTuple):
    """Vectors to insert: (B, n, D), of which row b has its own last `counts[b]`; whether all rows have n."""

    vectors: Tensor
    counts: Tensor
    even: bool


class Prompts(nn.ModuleDict):
    """Everything that adapters of a model put ahead, by adapter.

    Args:
        selection: which adapters act.
    """

    def __init__(self, selection: Selection):
        super().__init__()
        self.selection = selection

    def add(self, name: str, ahead: Ahead) -> None:
        """Take in what an adapter puts ahead."""
        self[name] = ahead

    def remove(self, name: str) -> None:
        """Take it out again."""
        del self[name]

    def longest(self, what: str = "inserted") -> int:
        """Most vectors (`inserted`) or positions (`taken`) that any row gets."""
        counts = self._counts(what)
        return (sum if self.selection.rows is None else max)(counts or [0])

    def room(self) -> int:
        """Positions of the model's context that are not left to the tokens."""
        return self.longest("inserted") + self.longest("taken")

    def _acting(self) -> list[Any]:
        known = dict(self.items())
        return [known.get(name) for name in self.selection.names]

    def _counts(self, what: str) -> list[int]:
        return [getattr(ahead, what, 0) for ahead in self._acting()]

    # -- where what stands --------------------------------------------------------------------------------------------

    def lay_out(
        self,
        embed: Any,
        x: Tensor,
        positions: Tensor | None,
        documents: Tensor | None,
        segments: Tensor | None,
        state: Any,
    ) -> Laid | None:
        """The tokens with the vectors before each document, or None where none begins. Arguments as of the model.

        Shorter rows are filled up in front, so that padding on the left stays there.
        """
        rows = self.selection.rows
        if rows is not None and len(rows) != len(x):
            raise UsageError(f"adapters are chosen for {len(rows)} rows, but {len(x)} arrive")
        table = self._table(len(x), x.device) if self.longest() else None
        begun = None if state is None or table is None else state.empty_rows()
        if table is None or (state is not None and begun is None):
            return None
        num_tokens, n = x.shape[1], table.vectors.shape[1]
        starts = _starts(x.shape[:2], documents, begun, x.device)  # (B, T)
        before = table.counts[:, None] * starts.cumsum(1)  # (B, T): vectors before a token in its row
        plain = table.even and documents is None and (begun is None or bool(begun.all()))
        extra = n if plain else int(before[:, -1].max())
        if not extra:
            return None
        places = torch.arange(num_tokens, device=x.device) + before + (extra - before[:, -1:])

        slots = torch.arange(num_tokens + extra, device=x.device).expand(len(x), -1).contiguous()
        following = torch.searchsorted(places, slots)  # (B, T'): the first given token that does not stand before
        gap = places.gather(1, following) - slots  # how far ahead it stands; 0 for itself
        own = starts.gather(1, following) & (gap > 0) & (gap <= table.counts[:, None])  # a place of the prompt

        index = torch.where(own, num_tokens + n - gap, following)
        vectors = embed.vectors(x)
        both = torch.cat((vectors, table.vectors.to(vectors.dtype)), dim=1)  # (B, T + n, D)
        ids = x.gather(1, following).masked_fill(gap > 0, -1) if x.ndim == 2 else None
        laid_out = both.gather(1, index[..., None].expand(-1, -1, both.shape[-1]))
        if not plain:
            documents = torch.ones(x.shape[:2], dtype=torch.int64, device=x.device) if documents is None else documents
            documents = documents.gather(1, following).masked_fill((gap > 0) & ~own, 0)
        return Laid(
            laid_out if ids is None else ids,
            laid_out,
            None if positions is None else _minus(_along(positions, following), gap),
            documents,
            None if segments is None else _along(segments, following),
            places,
        )

    def count_on(self, context: Context, given: bool, laid: Laid | None, embed: Any) -> None:
        """Let the positions of a call count on from what stands ahead, in place.

        Args:
            context: the call, of tokens and prompts.
            given: whether its positions are the caller's, who knows of no prompt, or count the prompt already.
            laid: the tokens and prompts, if there are prompts in this call.
            embed: what looks positions up in a table, if it does.

        Raises:
            UsageError: a position beyond the table.
        """
        device = context.positions.device
        taken = self._by_row("taken", device)
        ahead = taken + self._by_row("inserted", device) if given else taken
        context.positions = _minus(context.positions, -ahead).clamp(min=0)
        context.ahead, context.ids = taken, None if laid is None or laid.ids.is_floating_point() else laid.ids
        self._check_room(context.positions, embed)

    def _check_room(self, positions: Tensor, embed: Any) -> None:
        table = getattr(embed, "positions", None)
        if not isinstance(table, nn.Embedding):
            return
        learned = table.num_embeddings - getattr(embed, "offset", 0)
        text = positions if positions.ndim == 2 else positions[..., 0]
        if text.shape[1] + self.room() > learned and int(text.max()) >= learned:
            raise UsageError(
                f"a token would have position {int(text.max())}, but this model has learned those below {learned}, of "
                f"which its adapters take {self.room()}: shorten the text or the prompt"
            )

    def _by_row(self, what: str, device: torch.device) -> Tensor:
        """How many vectors or positions each row gets, (B, 1); (1, 1) where all rows get as many."""
        rows = self.selection.rows
        if rows is None:
            return torch.full((1, 1), sum(self._counts(what)), device=device)
        return torch.tensor([*self._counts(what), 0], device=device)[rows][:, None]

    def _table(self, batch: int, device: torch.device) -> Table:
        rows, acting = self.selection.rows, self._acting()
        if rows is None:
            vectors = torch.cat([ahead.vectors() for ahead in acting if ahead is not None and ahead.inserted])
            counts = torch.full((batch,), len(vectors), device=device)
            return Table(vectors.expand(batch, -1, -1), counts, True)
        counts, n = self._counts("inserted"), self.longest()
        filled = [
            F.pad(a.vectors(), (0, 0, n - a.inserted, 0)) if c else None for a, c in zip(acting, counts, strict=True)
        ]
        nothing = torch.zeros_like(next(v for v in filled if v is not None))
        vectors = torch.stack([nothing if v is None else v for v in [*filled, None]])[rows]  # -1 is the last: nothing
        return Table(vectors, torch.tensor([*counts, 0], device=device)[rows], False)


def embedding_of(model: Any, kind: str) -> Embedding:
    """The token embedding of a model that can take vectors before its tokens.

    Raises:
        UsageError: the model has none, by name.
    """
    embed: Any = getattr(model, "embed", None)
    fits = isinstance(embed, Embedding) and hasattr(model, "prompt") and isinstance(embed.tokens, nn.Embedding)
    one = torch.zeros(1, 1, dtype=torch.int64, device=next(model.parameters()).device)
    if not fits or not embed.vectors(one).is_floating_point():
        raise UsageError(
            f"{type(model).__name__} has no table of token vectors, so no vectors can stand before its tokens: {kind} "
            "does not fit it"
        )
    return embed


def _starts(shape: Any, documents: Tensor | None, begun: Tensor | None, device: torch.device) -> Tensor:
    """(B, T) bool: a document begins here."""
    if documents is None:
        starts = torch.zeros(shape, dtype=torch.bool, device=device)
        starts[:, 0] = True
    else:
        starts = documents != 0
        starts[:, 1:] &= documents[:, 1:] != documents[:, :-1]
    return starts if begun is None else starts & begun[:, None]


def _along(values: Tensor, index: Tensor) -> Tensor:
    """Values (B or 1, T) or (B or 1, T, 2) of the tokens at `index`, (B, T')."""
    values = values.expand(len(index), *values.shape[1:])
    return values.gather(1, index) if values.ndim == 2 else values.gather(1, index[..., None].expand(-1, -1, 2))


def _minus(positions: Tensor, steps: Tensor) -> Tensor:
    """Positions moved back; of pairs the first, in the text."""
    if positions.ndim == 2:
        return positions - steps
    return torch.stack((positions[..., 0] - steps, positions[..., 1].expand_as(positions[..., 0] - steps)), -1)
