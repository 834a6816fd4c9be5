"""How a block joins its parts.

Block                 x + f(norm(x))            pre-norm
PostNormBlock         norm(x + f(x))            post-norm: the stream itself is normalised
SandwichBlock         x + norm(f(norm(x)))      both ends of the branch
ThirdBranchBlock      s (x + norm(f(x)))        a third branch after a sandwich, and a factor of the stream
PostBranchNormBlock   x + norm(f(x))            the end of the branch alone
DeepNormBlock         norm(a x + f(x))          post-norm with a heavier stream, for very deep models
HeavyStreamBlock      a norm(x) + f(norm(x))    the same, told from norm to norm
NormedStreamBlock     norm(x), then pre-norm    the stream is normalised before the block alone
"""

from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from groundup.base.errors import UsageError
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

    def feed(self, x: Tensor, context: Context) -> Tensor:
        """The MLP; one that asks for the context gets it (a mixture of experts has to know what is padding)."""
        return self.mlp(x, context) if getattr(self.mlp, "takes_context", False) else self.mlp(x)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        x = x + self.attn_dropout(self.attn(self.norm1(x), context))
        return x + self.mlp_dropout(self.feed(self.norm2(x), context))


class ParallelBlock(Block):
    """Both branches read the same stream: x + attn(norm1(x)) + mlp(norm2(x)) (Black et al. 2022, GPT-NeoX).

    x --+-- norm1 -- attn --+--
        |-- norm2 -- mlp  --|
        |___________________|
    """

    layout = "( norm1|norm2 attn|mlp +"

    def forward(self, x: Tensor, context: Context) -> Tensor:
        attended = self.attn_dropout(self.attn(self.norm1(x), context))
        return x + (attended + self.mlp_dropout(self.mlp(self.norm2(x))))


class OneNormParallelBlock(nn.Module):
    """Both branches read the same norm: x + attn(norm1(x)) + mlp(norm1(x)) (Wang & Komatsuzaki 2021, GPT-J).

    Args:
        norm1, attn, mlp: the parts.
        attn_dropout, mlp_dropout: dropout of the two branches before they are added.
    """

    layout: ClassVar[str] = "( norm1 attn|mlp +"

    def __init__(
        self, norm1: nn.Module, attn: nn.Module, mlp: nn.Module, *, attn_dropout: float = 0.0, mlp_dropout: float = 0.0
    ):
        super().__init__()
        self.norm1, self.attn, self.mlp = norm1, attn, mlp
        self.attn_dropout, self.mlp_dropout = nn.Dropout(attn_dropout), nn.Dropout(mlp_dropout)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        h = self.norm1(x)
        return x + (self.attn_dropout(self.attn(h, context)) + self.mlp_dropout(self.mlp(h)))


class ScaledBlock(Block):
    """Branches are multiplied before they are added: x + s attn(norm1(x)), then x + s mlp(norm2(x)) (Hu et al. 2024,
    MiniCPM: s = 1.4 / sqrt(layers), so that depths of a family train alike).

    Args:
        norm1, attn, norm2, mlp: the parts, as in Block.
        scale: s.
        dropouts: see Block.
    """

    def __init__(
        self, norm1: nn.Module, attn: nn.Module, norm2: nn.Module, mlp: nn.Module, scale: float, **dropouts: float
    ):
        super().__init__(norm1, attn, norm2, mlp, **dropouts)
        self.scale = scale

    def forward(self, x: Tensor, context: Context) -> Tensor:
        x = x + self.attn_dropout(self.attn(self.norm1(x), context)) * self.scale
        return x + self.mlp_dropout(self.mlp(self.norm2(x))) * self.scale


class OneBranchBlock(nn.Module):
    """A block of one branch: x + mixer(norm1(x)) (Gu & Dao 2023, Mamba)."""

    layout: ClassVar[str] = "( norm1 mixer +"

    def __init__(self, norm1: nn.Module, mixer: nn.Module):
        super().__init__()
        self.norm1, self.mixer = norm1, mixer
        self.compiles: bool = getattr(mixer, "compiles", True)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return x + self.mixer(self.norm1(x), context)


class NormedStreamBlock(Block):
    """A pre-norm block over a stream that is normalised first: x = norm0(x), then as `Block` (Zeng et al. 2021,
    PanGu-alpha: the norm that ends GPT-2 stands before its last block).

    Args:
        norm0: of the stream.
        norm1, attn, norm2, mlp: the parts, as in Block.
        dropouts: see Block.
    """

    layout = "norm0 ( norm1 attn + ( norm2 mlp +"

    def __init__(
        self, norm0: nn.Module, norm1: nn.Module, attn: nn.Module, norm2: nn.Module, mlp: nn.Module, **dropouts: float
    ):
        super().__init__(norm1, attn, norm2, mlp, **dropouts)
        self.norm0 = norm0

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return super().forward(self.norm0(x), context)


class PostBranchNormBlock(Block):
    """Each branch is normalised at its end: x + norm1(attn(x)), then x + norm2(mlp(x)) (Liu et al. 2021, Swin V2; OLMo
    2, 2024). The stream itself passes unnormalised, as in a pre-norm block.
    """

    layout = "( attn norm1 + ( mlp norm2 +"

    def forward(self, x: Tensor, context: Context) -> Tensor:
        x = x + self.attn_dropout(self.norm1(self.attn(x, context)))
        return x + self.mlp_dropout(self.norm2(self.feed(x, context)))


class PostNormBlock(Block):
    """Post-norm: norm1(x + attn(x)), then norm2(x + mlp(x)) (Vaswani et al. 2017). No norm is needed after the last."""

    layout = "( attn + norm1 ( mlp + norm2"

    def forward(self, x: Tensor, context: Context) -> Tensor:
        x = self.norm1(x + self.attn_dropout(self.attn(x, context)))
        return self.norm2(x + self.mlp_dropout(self.feed(x, context)))


class SandwichBlock(Block):
    """Sandwich: x + end1(attn(norm1(x))), then x + end2(mlp(norm2(x))) (Ding et al. 2021, CogView; later Gemma 2).

    Args:
        norm1, attn, norm2, mlp: the parts, as in Block.
        end1, end2: norms of the two branches' results.
        dropouts: see Block.
    """

    layout = "( norm1 attn end1 + ( norm2 mlp end2 +"

    def __init__(
        self,
        norm1: nn.Module,
        attn: nn.Module,
        norm2: nn.Module,
        mlp: nn.Module,
        end1: nn.Module,
        end2: nn.Module,
        **dropouts: float,
    ):
        super().__init__(norm1, attn, norm2, mlp, **dropouts)
        self.end1, self.end2 = end1, end2

    def forward(self, x: Tensor, context: Context) -> Tensor:
        x = x + self.attn_dropout(self.end1(self.attn(self.norm1(x), context)))
        return x + self.mlp_dropout(self.end2(self.feed(self.norm2(x), context)))


class ThirdBranchBlock(SandwichBlock):
    """Sandwich, then x + end3(extra(x)), then the stream times a number (Gemma 3n 2025; Gemma 4 2026).

    Args:
        norm1, attn, norm2, mlp, end1, end2: the parts, as in SandwichBlock.
        extra: the third branch, called with the context; None for none.
        end3: norm of its result.
        dropouts: see Block.

    Attributes:
        layer_scalar: (1,), the number: a buffer, part of the weights but not trained.
    """

    layout = "( norm1 attn end1 + ( norm2 mlp end2 + ( extra end3 +"
    layer_scalar: Tensor

    def __init__(
        self, *parts: nn.Module, extra: nn.Module | None = None, end3: nn.Module | None = None, **dropouts: float
    ):
        super().__init__(*parts, **dropouts)
        self.extra, self.end3 = extra, end3
        self.register_buffer("layer_scalar", torch.ones(1))
        if extra is None:
            self.layout = SandwichBlock.layout  # type: ignore[misc]

    def forward(self, x: Tensor, context: Context) -> Tensor:
        x = super().forward(x, context)
        if self.extra is not None and self.end3 is not None:
            x = x + self.end3(self.extra(x, context))
        return x * self.layer_scalar


class DeepNormBlock(Block):
    """DeepNorm: norm1(a x + attn(x)), then norm2(a x + mlp(x)) (Wang et al. 2022). Its weights begin as
    `init.deepnorm` draws them.

    Args:
        norm1, attn, norm2, mlp: the parts, as in Block.
        alpha: a, from `deepnorm_constants`.
        dropouts: see Block.
    """

    layout = "( attn + norm1 ( mlp + norm2"

    def __init__(
        self, norm1: nn.Module, attn: nn.Module, norm2: nn.Module, mlp: nn.Module, *, alpha: float, **dropouts: float
    ):
        super().__init__(norm1, attn, norm2, mlp, **dropouts)
        self.alpha = alpha

    def forward(self, x: Tensor, context: Context) -> Tensor:
        x = self.norm1(self.alpha * x + self.attn_dropout(self.attn(x, context)))
        return self.norm2(self.alpha * x + self.mlp_dropout(self.feed(x, context)))


class HeavyStreamBlock(DeepNormBlock):
    """DeepNorm told from norm to norm: x = norm1(x), x = a x + attn(x), then the same with norm2 and mlp (Zeng et al.
    2022, GLM-130B). A norm stands before the first block and one more after the last; a is sqrt(2 L) there.
    """

    layout = "norm1 ( attn + norm2 ( mlp +"

    def forward(self, x: Tensor, context: Context) -> Tensor:
        x = self.norm1(x)
        x = self.norm2(self.alpha * x + self.attn_dropout(self.attn(x, context)))
        return self.alpha * x + self.mlp_dropout(self.feed(x, context))


class DeepNormConstants(NamedTuple):
    """alpha: factor of the stream; beta: gain of the values, outputs and feed-forward weights as they begin."""

    alpha: float
    beta: float


def deepnorm_constants(
    part: Literal["encoder", "decoder"], encoder_layers: int = 0, decoder_layers: int = 0
) -> DeepNormConstants:
    """DeepNorm's constants for one part of a model of N encoder and M decoder layers (Wang et al. 2022, figure 2).

    encoder alone     (2 N)^(1/4)             (8 N)^(-1/4)
    decoder alone     (2 M)^(1/4)             (8 M)^(-1/4)
    encoder of both   0.81 (N^4 M)^(1/16)     0.87 (N^4 M)^(-1/16)
    decoder of both   (3 M)^(1/4)             (12 M)^(-1/4)
    """
    n, m = encoder_layers, decoder_layers
    if not (n if part == "encoder" else m):
        raise UsageError(f"DeepNorm's constants of an {part} need {part}_layers above 0")
    if not (n and m):
        return DeepNormConstants((2 * (n or m)) ** 0.25, (8 * (n or m)) ** -0.25)
    if part == "encoder":
        return DeepNormConstants(0.81 * (n**4 * m) ** (1 / 16), 0.87 * (n**4 * m) ** (-1 / 16))
    return DeepNormConstants((3 * m) ** 0.25, (12 * m) ** -0.25)
