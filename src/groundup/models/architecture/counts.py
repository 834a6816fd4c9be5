"""The parameters of a model, counted by where they stand."""

from typing import Any

import torch
from torch import nn

from groundup.models.catalogue import model_class


def parameters_by_part(config: Any) -> dict[str, int]:
    """The model's own parameters, counted by where they stand; tied ones once."""
    with torch.device("meta"):
        return count_parts(model_class(config)(config))


def count_parts(model: nn.Module) -> dict[str, int]:
    """The same of a model that is there."""
    parts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = _part(name)
        parts[part] = parts.get(part, 0) + parameter.numel()
    return parts


PARTS = (
    ("embed.tokens", "token embedding"),
    ("embed.per_layer", "per-layer embedding"),
    ("embed.", "other embeddings"),
    (".attn.", "attention"),
    (".mlp.gate.", "gates"),
    (".mlp.experts.", "experts"),
    (".mlp.shared", "shared experts"),
    (".mlp.", "feed-forward"),
    (".extra.", "per-layer inputs"),
    (".rnn.", "recurrent layers"),
    ("norm", "norms"),
    ("lm_head", "output head"),
)


def _part(name: str) -> str:
    return next((part for sign, part in PARTS if sign in name), "other")
