"""Prompt tuning (Lester et al. 2021): vectors before the text learn, and nothing else.

x = [P ; E(tokens)]         P (n, D) learned, E frozen
"""

from typing import Any

import torch
from torch import Tensor, nn

from groundup.adapters.ahead import Ahead, embedding_of
from groundup.adapters.configs.prompt import PromptConfig
from groundup.adapters.part import placed_like
from groundup.adapters.plan import Plan
from groundup.base.errors import UsageError
from groundup.layers.embedding import Embedding
from groundup.tokenizers.hub import load_tokenizer

COMMON = 5000  # Lester et al. sample from the most common tokens; vocabularies are mostly in that order


class SoftPrompt(Ahead):
    """Learned vectors, (n, D)."""

    def __init__(self, initial: Tensor):
        super().__init__()
        self.inserted = len(initial)
        self.embedding = nn.Embedding.from_pretrained(initial, freeze=False)

    def vectors(self) -> Tensor:
        return self.embedding.weight


def plan(model: Any, config: PromptConfig) -> Plan:
    """Vectors with their initial values."""
    return Plan(prompt=SoftPrompt(_initial(embedding_of(model, "prompt tuning"), config)))


def _initial(embed: Embedding, config: PromptConfig) -> Tensor:
    """The first values, (n, D)."""
    vocabulary, n = embed.tokens.num_embeddings, config.length
    where = placed_like(embed)
    sampled = torch.randint(min(COMMON, vocabulary), (n,))
    if config.init == "random":  # the paper's bounds
        dim = vectors_of(embed, sampled[:1]).shape[-1]
        return torch.empty(n, dim, **where).uniform_(-0.5, 0.5)
    if config.init == "labels":  # a label of several tokens is their mean; what is left is sampled
        labels = [vectors_of(embed, ids).mean(0) for ids in _spelt(config.labels, config.tokenizer, "labels")]
        rest = vectors_of(embed, sampled)
        return torch.cat((torch.stack(labels)[:n], rest[len(labels) :])).to(**where)
    if config.init == "text":  # over and over, until the prompt is full
        (ids,) = _spelt([config.text], config.tokenizer, "text") if not config.ids else [torch.tensor(config.ids)]
        sampled = ids.repeat(-(-n // len(ids)))[:n]
    return vectors_of(embed, sampled).to(**where)


@torch.no_grad()
def vectors_of(embed: Embedding, ids: Tensor) -> Tensor:
    """The base's own vectors of some tokens, (n,) -> (n, D).

    Raises:
        UsageError: an id outside the vocabulary.
    """
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < embed.tokens.num_embeddings:
        raise UsageError(f"token {int(ids.max())} of the prompt is outside the {embed.tokens.num_embeddings} there are")
    return embed.vectors(ids.to(embed.weight.device)[None])[0].clone()


def _spelt(texts: list[str], tokenizer: str | None, what: str) -> list[Tensor]:
    if not tokenizer or not texts or not all(texts):
        raise UsageError(f"a prompt that begins as `{what}` needs `{what}`, and `tokenizer` to read it with")
    found = load_tokenizer(tokenizer)
    return [torch.tensor(found.encode(text)) for text in texts]
