"""Families that the formulas do not know: the model is built without memory, and its parts are counted.

For models without attention (recurrent, feed-forward): each linear layer works once a token, so operations and kept
activations follow from their shapes.
"""

import functools
from dataclasses import dataclass
from typing import Any

from groundup.estimates.shape import GPT_LIKE, KNOWN, Shape
from groundup.models.configs.text_part import text_part


@dataclass(frozen=True)
class Built:
    """What was counted.

    Attributes:
        parts: (name, parameters) by where they stand; tied ones once.
        matrices: (rows, columns, inside a block) of every matrix.
        blocks: numbers that the linear layers of all blocks read and give, a token.
        head: entries of the head's matrix.
        vocab, hidden, layers, context: of the config; the context is 1 where nothing bounds it.
    """

    parts: tuple[tuple[str, int], ...]
    matrices: tuple[tuple[int, int, bool], ...]
    blocks: int
    products: int
    head: int
    vocab: int
    hidden: int
    layers: int
    context: int

    @classmethod
    def of(cls, config: Any) -> "Built":
        """Build the model of a config on the meta device; torch is imported."""
        import torch
        from torch import nn

        from groundup.models.architecture.counts import count_parts
        from groundup.models.catalogue import model_class

        with torch.device("meta"):
            model = model_class(config)(config)
        linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
        inside = [m for name, m in linears.items() if name != "lm_head"]
        return cls(
            tuple(count_parts(model).items()),
            tuple(
                (p.shape[0], p.shape[1], name.startswith("blocks."))
                for name, p in model.named_parameters()
                if p.ndim == 2
            ),
            sum(m.in_features + m.out_features for m in inside),
            sum(m.weight.numel() for m in inside),
            linears["lm_head"].weight.numel() if "lm_head" in linears else 0,
            config.vocab_size,
            config.hidden_size,
            config.num_hidden_layers,
            config.max_position_embeddings or 1,
        )


def shape_of(config: Any) -> Shape | Built:
    """The numbers of a config object or a parsed config.json; `UsageError` names what is missing or unknown."""
    if isinstance(config, Shape | Built):
        return config
    if isinstance(config, dict) and isinstance(config.get("text_config"), dict):
        config = text_part(config)
    family = config.get("model_type") if isinstance(config, dict) else getattr(config, "model_type", None)
    from groundup.models.catalogue import FAMILIES, config_from_hf

    if family in KNOWN or family in GPT_LIKE or family not in FAMILIES:
        return Shape.of(config)
    if isinstance(config, dict):
        config = config_from_hf(config)
    elif not isinstance(config, FAMILIES[family].config):
        config = config_from_hf(config.to_dict())
    return _counted(family, config.model_dump_json())


@functools.lru_cache(maxsize=64)
def _counted(family: str, values: str) -> Built:
    from groundup.models.catalogue import FAMILIES

    return Built.of(FAMILIES[family].config.model_validate_json(values))
