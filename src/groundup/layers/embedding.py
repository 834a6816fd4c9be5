"""From token ids to vectors."""

import torch
from torch import Tensor, nn

from groundup.base.errors import UsageError
from groundup.layers.context import Context


class Embedding(nn.Module):
    """A row of `weight` per id; the same as a one-hot vector times the matrix. Vectors pass unchanged.

    (B, T) int64 or (B, T, D) -> (B, T, D)
    """

    def __init__(self, num_embeddings: int, dim: int, dropout: float = 0.0):
        super().__init__()
        self.tokens = nn.Embedding(num_embeddings, dim)
        self.dropout = nn.Dropout(dropout)

    @property
    def tables(self) -> tuple[nn.Embedding, ...]:
        """Every table that has a row for each id."""
        return (self.tokens,)

    @property
    def weight(self) -> Tensor:
        """The token vectors, (V, D): what an output head may be tied to."""
        return self.tokens.weight

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return self.dropout(self.vectors(x))

    def vectors(self, x: Tensor) -> Tensor:
        """The tokens' own vectors, before positions and dropout."""
        return x if x.is_floating_point() else self.tokens(x)


class PositionalEmbedding(Embedding):
    """Token vectors plus a learned vector per position (Radford et al. 2018).

    Args:
        num_embeddings, dim, dropout: as in Embedding.
        max_positions: positions that are learned.
        offset: rows of the table before that of position 0 (OPT: 2).
    """

    def __init__(self, num_embeddings: int, dim: int, max_positions: int, dropout: float = 0.0, offset: int = 0):
        super().__init__(num_embeddings, dim, dropout)
        self.positions = nn.Embedding(max_positions + offset, dim)
        self.offset = offset

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return self.dropout(self.placed(x, context))

    def placed(self, x: Tensor, context: Context) -> Tensor:
        """The tokens' vectors with their positions in them, before dropout."""
        learned, asked = self.positions.num_embeddings - self.offset, context.positions.shape[1]
        if asked > learned and context.documents is None:
            raise UsageError(
                f"{asked} tokens in a row, but this model has learned {learned} positions: shorten the text"
            )
        return self.vectors(x) + self.positions(context.positions + self.offset)


class BlankPositionEmbedding(PositionalEmbedding):
    """Token vectors plus two learned ones, for the place in the text and the place in the blank (Du et al. 2022, GLM).

    Args:
        num_embeddings, dim, max_positions, dropout: see PositionalEmbedding; both tables have `max_positions` rows.
    """

    def __init__(self, num_embeddings: int, dim: int, max_positions: int, dropout: float = 0.0):
        super().__init__(num_embeddings, dim, max_positions, dropout)
        self.blanks = nn.Embedding(max_positions, dim)

    def placed(self, x: Tensor, context: Context) -> Tensor:
        """The tokens' vectors with both positions in them; positions (B, T) are all outside blanks."""
        positions, learned = context.positions, self.positions.num_embeddings
        if positions.ndim == 2:
            positions = torch.stack((positions, torch.zeros_like(positions)), -1)
        # part A and part B each have positions of their own: only a row longer than a table can leave it
        if positions.shape[1] > learned and int(positions.max()) >= learned:
            raise UsageError(
                f"a token has position {int(positions.max())}, but this model has learned those below {learned}: "
                "shorten the text or the blank"
            )
        text, blank = positions.unbind(-1)
        return self.vectors(x) + self.positions(text) + self.blanks(blank)


class SegmentEmbedding(PositionalEmbedding):
    """Token, position and segment vectors, all learned (Devlin et al. 2019): sentence A has segment 0, B has 1.

    Args:
        num_embeddings, dim, max_positions, dropout: see PositionalEmbedding.
        num_segments: rows of the segment table.
    """

    def __init__(self, num_embeddings: int, dim: int, max_positions: int, num_segments: int = 2, dropout: float = 0.0):
        super().__init__(num_embeddings, dim, max_positions, dropout)
        self.segments = nn.Embedding(num_segments, dim)

    def placed(self, x: Tensor, context: Context) -> Tensor:
        segments = context.segments
        if segments is None:
            segments = torch.zeros(x.shape[:2], dtype=torch.int64, device=x.device)
        return super().placed(x, context) + self.segments(segments)


def sentence_segments(ids: Tensor, separator: int) -> Tensor:
    """0 up to and including the first separator of a row, 1 after it: [CLS] A [SEP] B [SEP] -> 0 0 0 1 1. (B, T)"""
    ends = (ids == separator).long()
    return ((ends.cumsum(1) - ends) > 0).long()


class NormedEmbedding(Embedding):
    """Token vectors, normalised before the first block (BLOOM, Le Scao et al. 2022), as given ones are.

    Args:
        num_embeddings, dim: as in Embedding.
        norm: over D features.
    """

    def __init__(self, num_embeddings: int, dim: int, norm: nn.Module):
        super().__init__(num_embeddings, dim)
        self.norm = norm

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return self.norm(self.vectors(x))


class ScaledEmbedding(Embedding):
    """Token vectors times a factor, rounded to the weights' dtype (Vaswani et al. 2017; Gemma 2024).

    Vectors that come in place of ids pass unchanged.

    Args:
        num_embeddings, dim: as in Embedding.
        factor: sqrt(dim) when None.
    """

    def __init__(self, num_embeddings: int, dim: int, factor: float | None = None):
        super().__init__(num_embeddings, dim)
        self.factor = dim**0.5 if factor is None else factor

    def vectors(self, x: Tensor) -> Tensor:
        if x.is_floating_point():
            return x
        scale = torch.tensor(self.factor, dtype=self.tokens.weight.dtype)
        return self.tokens(x) * scale.to(x.device)
