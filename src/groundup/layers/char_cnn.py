"""Words from their characters: convolutions of several widths over a word's bytes, the largest value of each filter,
highway layers, a projection (Kim et al. 2016; Jozefowicz et al. 2016; Peters et al. 2018, ELMo).

A word never seen has a vector too, and words of one stem have similar ones.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from groundup.layers.context import Context

# ELMo's numbers of characters: bytes 0 to 255, begin and end of a sentence, begin and end of a word, padding; each is
# one higher as a row of the table, whose row 0 is for masked words.
BEGIN, END, PAD, ROWS = 258, 259, 260, 262


class Highway(nn.Module):
    """g relu(W x + b) + (1 - g) x with g = σ(V x + c): x passes where it need not change (Srivastava et al. 2015)."""

    def __init__(self, dim: int):
        super().__init__()
        self.change, self.gate = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return torch.lerp(x, self.change(x).relu(), self.gate(x).sigmoid())


class CharacterCNN(nn.Module):
    """Vectors of words by their characters. (B, T) ids -> (B, T, D); vectors (B, T, D) pass unchanged.

    Args:
        words: V, words whose spelling is kept; `spell` fills the table.
        dim: D.
        filters: (width in characters, number) of each convolution.
        char_dim: width of a character's vector.
        highways: highway layers.
        longest: characters of a word; the rest of a longer one is left out.
        dropout: of the vectors.
    """

    spelling: Tensor

    def __init__(
        self,
        words: int,
        dim: int,
        filters: Sequence[tuple[int, int]],
        *,
        char_dim: int = 16,
        highways: int = 2,
        longest: int = 50,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.register_buffer("spelling", torch.zeros(words, longest, dtype=torch.int64))
        self.characters = nn.Embedding(ROWS, char_dim)
        self.convolutions = nn.ModuleList(nn.Conv1d(char_dim, count, width) for width, count in filters)
        total = sum(count for _, count in filters)
        self.highways = nn.ModuleList(Highway(total) for _ in range(highways))
        self.proj = nn.Linear(total, dim)
        self.dropout = nn.Dropout(dropout)

    def spell(self, words: Sequence[str]) -> None:
        """Keep how the words of the vocabulary are spelt, in the order of their ids."""
        longest = self.spelling.shape[1]
        self.spelling[: len(words)] = torch.tensor([spelt(word, longest) for word in words])

    def forward(self, x: Tensor, context: Context) -> Tensor:
        if x.is_floating_point():
            return self.dropout(x)
        words, place = x.unique(return_inverse=True)  # a word's vector is made once, however often it stands there
        return self.dropout(self.of_characters(self.spelling[words])[place])

    def of_characters(self, characters: Tensor) -> Tensor:
        """Words by their characters' rows, (N, longest) int64 -> (N, D)"""
        vectors = self.characters(characters).mT  # (N, char_dim, longest)
        # the largest value over the places of each filter, then relu
        x = torch.cat([convolution(vectors).amax(-1) for convolution in self.convolutions], dim=-1).relu()
        for highway in self.highways:
            x = highway(x)
        return self.proj(x)


def spelt(word: str, longest: int = 50) -> list[int]:
    """The rows of a word's characters: begin, UTF-8 bytes, end, padding; `longest` in all."""
    inner = list(word.encode("utf-8", errors="replace"))[: longest - 2]
    characters = [BEGIN, *inner, END]
    return [c + 1 for c in characters + [PAD] * (longest - len(characters))]
