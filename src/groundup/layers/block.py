"""How a block joins its parts."""

from typing import ClassVar

from torch import Tensor, nn

from groundup.layers.context import Context


class Block(nn.Module):
    """Pre-norm residual block: x + attn(norm1(x)), then x + mlp(norm2(x)) (Radford et al. 2019).

        x --+-- norm1 -- attn --+-- norm2 -- mlp --+--
            |___________________|                  |
                                |__________________|

    Args:
        norm1, attn, norm2, mlp: the parts.
        attn_dropout, mlp_dropout: dropout of the two branches before they are added.
    """

    layout: ClassVar[str] = "( norm1 attn + ( norm2 mlp +"
    """For drawings: parts in order, `(` where a branch leaves the stream, `+` where it is added again, `a|b` for parts
    that work side by side.
    """

    def __init__(
        self,
        norm1: nn.Module,
        attn: nn.Module,
        norm2: nn.Module,
        mlp: nn.Module,
        *,
        attn_dropout: float = 0.0,
        mlp_dropout: float = 0.0,
    ):
        super().__init__()
        self.norm1, self.attn, self.norm2, self.mlp = norm1, attn, norm2, mlp
        self.attn_dropout, self.mlp_dropout = nn.Dropout(attn_dropout), nn.Dropout(mlp_dropout)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        x = x + self.attn_dropout(self.attn(self.norm1(x), context))
        return x + self.mlp_dropout(self.mlp(self.norm2(x)))


class PostBranchNormBlock(Block):
    """Each branch is normalised at its end: x + norm1(attn(x)), then x + norm2(mlp(x)) (Liu et al. 2021, Swin V2; OLMo
    2, 2024). The stream itself passes unnormalised, as in a pre-norm block.
    """

    layout = "( attn norm1 + ( mlp norm2 +"

    def forward(self, x: Tensor, context: Context) -> Tensor:
        x = x + self.attn_dropout(self.norm1(self.attn(x, context)))
        return x + self.mlp_dropout(self.norm2(self.mlp(x)))
