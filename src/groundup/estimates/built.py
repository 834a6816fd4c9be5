"""Families that the formulas do not know: the model is built without memory, and its parts are counted.

For models without attention (recurrent, feed-forward), and those whose layers differ in their heads: each linear layer
works once a token, and each attention tells its heads, so operations and memory follow from their shapes.
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
        products: entries of all matrices that multiply a token, the head's left out; of experts those that it visits.
        head: entries of the head's matrix.
        pairs: numbers of all heads of all layers that a query and a key multiply, keys and values together.
        scores: numbers that attention keeps for backward for each pair of query and key: heads, over all layers.
        cached: keys and values that a token leaves, numbers over all layers.
        idle: parameters of experts that a token does not visit.
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
    pairs: int = 0
    scores: int = 0
    cached: int = 0
    idle: int = 0

    @classmethod
    def of(cls, config: Any) -> "Built":
        """Build the model of a config on the meta device; torch is imported."""
        import torch
        from torch import nn

        from groundup.layers.attention import Attention
        from groundup.layers.moe.mixture import MixtureOfExperts
        from groundup.models.architecture.counts import count_parts
        from groundup.models.catalogue import model_class

        with torch.device("meta"):
            model = model_class(config)(config)
        linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
        inside = [m for name, m in linears.items() if name != "lm_head"]
        attention = [m for m in model.modules() if isinstance(m, Attention)]
        mixtures = [m for m in model.modules() if isinstance(m, MixtureOfExperts)]
        experts = sum(p.numel() for m in mixtures for p in m.experts.parameters())
        visited = sum(_visited(m) for m in mixtures)
        return cls(
            tuple(count_parts(model).items()),
            tuple(
                (p.shape[0], p.shape[1], name.startswith("blocks."))
                for name, p in model.named_parameters()
                if p.ndim == 2
            ),
            sum(m.in_features + m.out_features for m in inside),
            sum(m.weight.numel() for m in inside) + visited + sum(m.gate.weight.numel() for m in mixtures),
            linears["lm_head"].weight.numel() if "lm_head" in linears else 0,
            config.vocab_size,
            config.hidden_size,
            config.num_hidden_layers,
            config.max_position_embeddings or 1,
            pairs=2 * sum(m.q_proj.out_features for m in attention),
            scores=sum(m.q_proj.out_features // m.head_dim for m in attention),
            cached=2 * sum(m.k_proj.out_features for m in attention if m.memory == "keys"),
            idle=experts - visited,
        )


def _visited(mixture: Any) -> int:
    """Parameters of the experts that a token goes to."""
    experts = sum(p.numel() for p in mixture.experts.parameters())
    return experts * int(mixture.gate.k) // int(mixture.gate.num_experts)


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
