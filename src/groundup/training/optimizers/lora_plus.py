"""LoRA+ (Hayou et al. 2024): B learns faster than A.

At the width of large models the right learning rate of B is larger than that of A by an order of magnitude, as B begins
at zero and its gradients shrink with the width; one rate for both is right for neither.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

_B = re.compile(r"\.adapters\.(\w+)\.lora_B\.")


def lora_plus_groups(groups: Iterable[dict[str, Any]], lr: float, ratios: Mapping[str, float]) -> list[dict[str, Any]]:
    """`decay_groups` (or `layer_groups`) parted by how fast their tensors learn.

    Args:
        groups: with (name, parameter) pairs.
        lr: of groups that have no rate of their own.
        ratios: adapter -> the rate of its matrices B (`*.adapters.NAME.lora_B.*`) over that of their group.
    """
    parted = []
    for group in groups:
        rate, by_ratio = group.get("lr", lr), dict[float, list[Any]]()
        for name, parameter in group["params"]:
            found = _B.search(name)
            by_ratio.setdefault(ratios.get(found[1], 1.0) if found else 1.0, []).append((name, parameter))
        parted += [{**group, "params": pairs, "lr": rate * ratio} for ratio, pairs in sorted(by_ratio.items())]
    return parted
