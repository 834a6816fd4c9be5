"""Models of every family at equal size: the same layers, width and vocabulary, and an MLP as wide as it takes.

A family has its own parts, so at one width families differ in parameters; here the hidden width of the feed-forward
network (of each expert, where there are several) is solved for, so that all have as many as asked for.
"""

from dataclasses import dataclass
from typing import Any

from groundup.base.errors import UsageError
from groundup.models.catalogue import FAMILIES, family
from groundup.models.configs.base import ModelConfig

WIDTHS = ("intermediate_size", "moe_intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner", "dim_ffn")
"""What families call the hidden width of their feed-forward network, under our names."""

# What a family needs beside the common shape to be like itself at a small size.
OWN: dict[str, dict[str, Any]] = {
    "gemma": {"head_dim": 32},
    "qwen3": {"head_dim": 32},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
}
# Families that are not trained by gradients, or have no size of their own to choose.
LEFT_OUT = frozenset({"ngram"})


@dataclass(frozen=True)
class Size:
    """What all have in common."""

    layers: int = 6
    width: int = 256
    heads: int = 8
    context: int = 256
    vocabulary: int = 2048
    parameters: int = 6_000_000


def trainable_families() -> list[str]:
    """The families that can be compared."""
    return [name for name in FAMILIES if name not in LEFT_OUT]


def equal_size(model_type: str, size: Size) -> ModelConfig:
    """The config of a family with about `size.parameters` parameters.

    Raises:
        UsageError: the family cannot be made so small or so large by its feed-forward width alone.
    """
    config = family(model_type).config
    common = {
        "vocab_size": size.vocabulary,
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "max_position_embeddings": size.context,
        **{name: 0.0 for name in config.model_fields if name.endswith(("_pdrop", "dropout"))},
    }
    shape = {name: value for name, value in common.items() if name in config.model_fields} | OWN.get(model_type, {})
    names = [name for name in WIDTHS if name in config.model_fields]
    if not names:
        return config.parse(shape, where=model_type)

    def made(width: int) -> ModelConfig:
        return config.parse(shape | dict.fromkeys(names, width), where=model_type)

    # Parameters grow in a straight line with the width: two points give the line.
    low, high = size.width, 2 * size.width
    at_low, at_high = count(made(low)), count(made(high))
    width = round((low + (size.parameters - at_low) * (high - low) / (at_high - at_low)) / 8) * 8
    if width < 8:
        raise UsageError(
            f"{model_type} has {at_low:,} parameters with a feed-forward width of {low}: it cannot have "
            f"{size.parameters:,}. Ask for more, or for a smaller width or vocabulary"
        )
    return made(width)


def count(config: ModelConfig) -> int:
    """All parameters, by building without data."""
    from groundup.models.architecture.counts import parameters_by_part

    return sum(parameters_by_part(config).values())
