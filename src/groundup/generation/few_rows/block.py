"""A whole pre-norm block of one token a row in one compiled call."""

from typing import Any

import torch
from torch import Tensor, nn

from groundup.generation.few_rows.attention import FewRowsAttention
from groundup.generation.few_rows.feed_forward import FewRowsMLP
from groundup.generation.few_rows.linear import kernels
from groundup.generation.few_rows.norms import FewRowsNorm
from groundup.layers.block import Block
from groundup.layers.context import Context


def is_standard(block: Any) -> bool:
    """Whether a block is pre-norm and all its parts have compiled steps."""
    return type(block) is Block and [type(part) for part in (block.norm1, block.attn, block.norm2, block.mlp)] == [
        *(FewRowsNorm, FewRowsAttention, FewRowsNorm, FewRowsMLP)
    ]


class FewRowsBlock(nn.Module):
    """A block that takes a single token a row in one compiled function, and anything else part by part."""

    def __init__(self, block: Any):
        super().__init__()
        self.block = block
        norms = block.norm1.plan, block.norm2.plan
        self.plan = (
            tuple((norm.kind, norm.weight, norm.bias) for norm in norms),
            tuple(norm.eps for norm in norms),
            block.attn.plan,
            block.mlp.plan,
        )

    @property
    def attn(self) -> Any:
        """The attention inside: what a state is made from."""
        return self.block.attn

    def forward(self, x: Tensor, context: Context) -> Tensor:
        attn = self.block.attn
        if not attn.takes(x, context):
            return self.block(x, context)
        x = x.clone(memory_format=torch.contiguous_format)  # the step works in place
        call = attn.call(context)
        compiled = kernels()
        with compiled.one_at_a_time:
            compiled.block_step(*self.plan, call, x[:, 0].numpy(), attn.like)
        return x
