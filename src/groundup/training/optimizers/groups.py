"""Weight-decay groups: which tensors are pulled towards zero.

Decay belongs to matrices, whose scale it bounds. Biases, the gains of norms and every other vector are left alone
(GPT-2, GPT-3, Llama do so). Embedding tables are matrices and decay by default, as in GPT-3; with
`decay_embeddings=False` they do not: the rows of rare tokens then keep their size between their few updates.
"""

import math
import re
from collections.abc import Iterable
from typing import Any

from torch.nn import Parameter

from groundup.base.errors import UsageError

_EMBEDDING = re.compile(r"(^|\.)(\w*embed\w*|wte|wpe|lm_head)(\.|$)")


def is_embedding(name: str) -> bool:
    """Whether a tensor's name says that it is an embedding table, learned positions or the output head."""
    return _EMBEDDING.search(name) is not None


def decays(name: str, parameter: Parameter, *, decay_embeddings: bool = True) -> bool:
    """Whether weight decay reaches this tensor."""
    return parameter.ndim >= 2 and (decay_embeddings or not is_embedding(name))


def decay_groups(
    named_parameters: Iterable[tuple[str, Parameter]], weight_decay: float, *, decay_embeddings: bool = True
) -> list[dict[str, Any]]:
    """Two optimizer groups, with and without decay, of the parameters that require a gradient.

    `params` holds (name, parameter) pairs; an empty group is left out. A parameter used under two names (tied) counts
    once. `UsageError` if none is left.
    """
    chosen: list[tuple[str, Parameter]] = []
    seen: set[int] = set()
    for name, parameter in named_parameters:
        if parameter.requires_grad and id(parameter) not in seen:
            seen.add(id(parameter))
            chosen.append((name, parameter))
    if not chosen:
        raise UsageError("no parameter requires a gradient: unfreeze some, or build the adapters before the optimizer")
    with_decay = [pair for pair in chosen if decays(*pair, decay_embeddings=decay_embeddings)]
    without = [pair for pair in chosen if not decays(*pair, decay_embeddings=decay_embeddings)]
    groups = [{"params": with_decay, "weight_decay": weight_decay}, {"params": without, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def depth(name: str) -> float:
    """How far above the input a tensor stands, by its name: the embedding 0, block i i + 1, what follows the blocks
    higher than any.
    """
    found = re.search(r"(?:^|\.)blocks\.(\d+)(?:\.|$)", name)
    if found is not None:
        return int(found[1]) + 1
    return 0 if re.search(r"(?:^|\.)embed(?:\.|$)", name) else math.inf


def layer_groups(groups: Iterable[dict[str, Any]], lr: float, factor: float) -> list[dict[str, Any]]:
    """`decay_groups` parted by depth, with a learning rate for each: lr at the top, divided by `factor` for every layer
    below it (Howard & Ruder 2018, discriminative fine-tuning). The highest layer comes first.
    """
    groups = list(groups)
    levels = sorted({depth(name) for group in groups for name, _ in group["params"]}, reverse=True)
    parted = []
    for below, level in enumerate(levels):
        for group in groups:
            pairs = [pair for pair in group["params"] if depth(pair[0]) == level]
            if pairs:
                parted.append({**group, "params": pairs, "lr": lr / factor**below})
    return parted


def group_table(groups: Iterable[dict[str, Any]]) -> list[tuple[str, tuple[int, ...], float, str]]:
    """(name, shape, weight decay, rule) of every tensor: of `decay_groups`, or an optimizer's `param_groups`."""
    rows = []
    for group in groups:
        pairs = zip(group["param_names"], group["params"], strict=True) if "param_names" in group else group["params"]
        for name, parameter in pairs:
            rows.append((name, tuple(parameter.shape), group["weight_decay"], group.get("rule", "")))
    return rows
