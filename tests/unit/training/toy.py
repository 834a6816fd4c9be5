"""A small language model with the Model signature, and data with a position: stand-ins for the tests of the loop."""

from typing import Any

import torch
from torch import nn

from groundup.base.config import Config


class ToyConfig(Config):
    vocab_size: int = 17
    hidden_size: int = 16
    num_hidden_layers: int = 2
    dropout: float = 0.0
    tie_word_embeddings: bool = False


class ToyBlock(nn.Module):
    """A causal running mean within each document, then a feed-forward network."""

    def __init__(self, size: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.up = nn.Linear(size, 4 * size)
        self.down = nn.Linear(4 * size, size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
        h = self.norm(x)
        h = (allowed / allowed.sum(-1, keepdim=True).clamp(min=1)) @ h
        return x + self.dropout(self.down(torch.tanh(self.up(h))))


class ToyModel(nn.Module):
    def __init__(self, config: ToyConfig | None = None, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.config = config or ToyConfig()
        c = self.config
        self.embed = nn.Embedding(c.vocab_size, c.hidden_size)
        self.blocks = nn.ModuleDict({str(i): ToyBlock(c.hidden_size, c.dropout) for i in range(c.num_hidden_layers)})
        self.norm = nn.LayerNorm(c.hidden_size)
        self.lm_head = nn.Linear(c.hidden_size, c.vocab_size, bias=False)
        if c.tie_word_embeddings:
            self.lm_head.weight = self.embed.weight

    def forward(
        self, x: Any, *, positions: Any = None, documents: Any = None, state: Any = None, head: Any = None
    ) -> Any:
        length = x.shape[1]
        allowed = torch.ones(length, length, dtype=torch.bool, device=x.device).tril().expand(len(x), -1, -1)
        if documents is not None:
            allowed = allowed & (documents[:, :, None] == documents[:, None, :]) & (documents != 0)[:, None, :]
        h = self.embed(x)
        for block in self.blocks.values():
            h = block(h, allowed.to(h.dtype))
        h = self.norm(h)
        return self.lm_head(h) if head is None else head(h, self.lm_head)


def toy_rows(rows: int = 30, length: int = 12, vocab: int = 17, packed: bool = False, seed: int = 0) -> dict[str, Any]:
    """`rows` rows that a model can learn something from: each token is the last one plus 1 or 3."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randint(0, 2, (rows, length + 1), generator=generator) * 2 + 1
    tokens = (torch.randint(0, vocab, (rows, 1), generator=generator) + steps.cumsum(1)) % vocab
    batch: dict[str, Any] = {"ids": tokens[:, :-1].contiguous(), "labels": tokens[:, 1:].clone()}
    if packed:
        cut = torch.randint(2, length - 2, (rows, 1), generator=generator)
        place = torch.arange(length)[None]
        batch["documents"] = 1 + (place >= cut).long()
        batch["labels"][place == cut - 1] = -100
        pad = place >= length - torch.randint(0, 4, (rows, 1), generator=generator)
        batch["documents"][pad] = 0
        batch["labels"][pad] = -100
    batch["sources"] = [f"doc-{row}" for row in range(rows)]
    return batch


class ToyLoader:
    """Shuffles each epoch by its number; the position is the count of rows."""

    def __init__(self, rows: dict[str, Any], batch_size: int, seed: int = 0):
        self.rows, self.batch_size, self.seed, self.seen = rows, batch_size, seed, 0
        self.rows_in_epoch = len(rows["ids"])

    @property
    def epoch(self) -> int:
        return self.seen // self.rows_in_epoch

    def __iter__(self) -> "ToyLoader":
        return self

    def __next__(self) -> dict[str, Any]:
        index = [self._row(self.seen + i) for i in range(self.batch_size)]
        self.seen += self.batch_size
        return {k: v[index] if isinstance(v, torch.Tensor) else [v[i] for i in index] for k, v in self.rows.items()}

    def _row(self, number: int) -> int:
        epoch, place = divmod(number, self.rows_in_epoch)
        order = torch.randperm(self.rows_in_epoch, generator=torch.Generator().manual_seed(self.seed * 1000 + epoch))
        return int(order[place])

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]
