"""Low-rank adaptation (Hu et al. 2021): a frozen matrix learns by the product of two narrow ones.

y = W x + s B A x        A (r, in) Gaussian, B (out, r) zero, s = alpha / r
"""

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from groundup.adapters.configs.lora import LoRAConfig
from groundup.adapters.part import Part, placed_like
from groundup.adapters.plan import Plan, targets


class LoRA(Part):
    """The two matrices at one linear layer. They keep float32 where the base is stored in fewer bits.

    Args:
        layer: what it stands on.
        config: rank, alpha, dropout.
    """

    can_merge = True

    def __init__(self, layer: Any, config: LoRAConfig):
        super().__init__()
        where = placed_like(layer)
        self.lora_A = nn.Linear(layer.in_features, config.rank, bias=False, **where)
        self.lora_B = nn.Linear(config.rank, layer.out_features, bias=False, **where)
        self.dropout, self.scale = config.dropout, config.alpha / config.rank
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)

    def after(self, base: nn.Module, args: tuple[Any, ...], y: Tensor) -> Tensor:
        x = args[0].to(self.lora_A.weight.dtype)
        x = F.dropout(x, self.dropout, self.training)
        return y + (self.lora_B(self.lora_A(x)) * self.scale).to(y.dtype)


def plan(model: nn.Module, config: LoRAConfig) -> Plan:
    """LoRA on every target."""
    return Plan({name: LoRA(layer, config) for name, layer in targets(model, config.targets).items()})
