"""More rows for the embedding and the head of a trained model, for tokens that its vocabulary gains."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from groundup.base.errors import UsageError

if TYPE_CHECKING:
    from groundup.models.text.causal_lm import CausalLM


ROWS = ("vocab_size", "vocab_size_per_layer_input")
"""Fields that tell how many rows the tables of ids have."""


def resize_embeddings(model: "CausalLM", size: int, learned: int | None = None) -> None:
    """Give the model `size` token ids; the rows of new ones are the mean of those that were learned.

    The logit of a new token is then the mean of the n others', so that it takes at most 1 / (n + 1) of the probability
    from them, where a random row could take nearly all (Hewitt, 2021).

    Args:
        model: changed in place; embedding and head stay tied where they were.
        size: number of ids; not less than the model has.
        learned: how many ids had a token so far; rows from there on are new, even where the model had them already.

    Raises:
        UsageError: fewer ids than the model has, or a model without its embedding or head (a pipeline stage).
    """
    old: int = model.config.vocab_size
    learned = old if learned is None else min(learned, old)
    if size < old:
        raise UsageError(f"the model has {old} token ids, and {size} would be fewer: ids of a trained model stay")
    if learned < 1:
        raise UsageError("there is no learned row to take the mean of")
    if model.embed is None or not isinstance(model.lm_head, nn.Linear):
        raise UsageError("the whole model is needed: this part of it has no embedding or no head")
    tied = model.lm_head.weight is model.embed.tokens.weight
    head = model.lm_head
    for table in model.embed.tables:
        table.weight = _longer(table.weight, size, learned)
        table.num_embeddings = size
    head.weight = model.embed.tokens.weight if tied else _longer(head.weight, size, learned)
    head.out_features = size
    if head.bias is not None:
        head.bias = _longer(head.bias, size, learned)
    told = [name for name in ROWS if getattr(model.config, name, None) is not None]
    model.config = model.config.model_copy(update=dict.fromkeys(told, size))


@torch.no_grad()
def _longer(rows: Tensor, size: int, learned: int) -> nn.Parameter:
    """`rows` (V, ...) with `size` of them; those from `learned` on are the mean of those before."""
    mean = rows[:learned].float().mean(dim=0).to(rows.dtype)
    new = mean.expand(size - learned, *rows.shape[1:])
    return nn.Parameter(torch.cat([rows[:learned], new]), requires_grad=rows.requires_grad)
