"""LoRA+ (Hayou et al. 2024): B learns faster than A.

At the width of large models the right learning rate of B is larger than that of A by an order of magnitude, as B begins
at zero and its gradients shrink with the width; one rate for both is right for neither.
"""

from collections.abc import Iterable
from typing import Any


def lora_plus_groups(groups: Iterable[dict[str, Any]], lr: float, ratio: float) -> list[dict[str, Any]]:
    """`decay_groups` (or `layer_groups`) parted in two: tensors named `*.lora_B.*` learn at `ratio` times the rate of
    their group, which is `lr` where the group has none of its own.
    """
    parted = []
    for group in groups:
        rate = group.get("lr", lr)
        for fast in (False, True):
            pairs = [pair for pair in group["params"] if (".lora_B." in pair[0]) is fast]
            if pairs:
                parted.append({**group, "params": pairs, "lr": rate * ratio if fast else rate})
    return parted
