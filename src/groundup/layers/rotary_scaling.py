"""Rotary frequencies for contexts longer than those of training (rope_type in config.json).

    linear    LinearScaling       every wavelength is stretched            Chen et al. 2023
    ntk       NTKScaling          theta is raised: long waves stretch most  bloc97 2023
    dynamic   DynamicNTKScaling   theta is raised with the length          emozilla 2023
    yarn      YarnScaling         stretched only where a wave is long, and softmax sharpened   Peng et al. 2023
    llama3    Llama3Scaling       the same idea, other blend               Grattafiori et al. 2024
    longrope  LongRopeScaling     a searched factor for each wavelength    Ding et al. 2024

`rope.py` has the first and the last but one.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from groundup.layers.rope import Scaling


@dataclass(frozen=True)
class NTKScaling(Scaling):
    """theta becomes theta * factor^(dim / (dim - 2)): the longest wave is stretched by `factor`, the shortest stays."""

    factor: float = 1.0

    def __call__(self, frequencies: Tensor, theta: float, length: Tensor) -> Tensor:
        return raise_theta(frequencies, torch.tensor(self.factor, device=frequencies.device))


@dataclass(frozen=True)
class DynamicNTKScaling(Scaling):
    """NTK scaling by as much as the row is longer than the context of training, so that shorter rows are as trained.

        factor * length / context - (factor - 1)      in place of factor, for length above context

    Keys in a cache keep the rotation of their time, as in transformers.
    """

    factor: float = 1.0
    max_position_embeddings: int = 2048

    def __call__(self, frequencies: Tensor, theta: float, length: Tensor) -> Tensor:
        context = self.max_position_embeddings
        ratio = self.factor * length.clamp(min=context) / context - (self.factor - 1)
        return raise_theta(frequencies, ratio)


@dataclass(frozen=True)
class DoublingNTKScaling(Scaling):
    """NTK scaling in steps (Qwen, Bai et al. 2023): by 3 up to twice the context of training, by 7 up to four times it.

        2^ceil(log2(length / context) + 1) - 1      in place of factor, for length above context

    Keys in a cache keep the rotation of their time.
    """

    context: int = 2048

    def __call__(self, frequencies: Tensor, theta: float, length: Tensor) -> Tensor:
        doublings = (length.clamp(min=self.context) / self.context).log2().ceil() + 1
        return raise_theta(frequencies, 2**doublings - 1)


@dataclass(frozen=True)
class HalfPrecision(Scaling):
    """Frequencies rounded to float16, as ChatGLM-6B's code holds them: near position 2000 an angle is off by up to a
    quarter of a radian, and the model has learned it so.
    """

    def __call__(self, frequencies: Tensor, theta: float, length: Tensor) -> Tensor:
        return frequencies.half().float()


def raise_theta(frequencies: Tensor, ratio: Tensor) -> Tensor:
    """(theta * ratio^(dim / (dim - 2)))^(-2j / dim) = theta^(-2j / dim) * ratio^(-j / (dim/2 - 1))"""
    pairs = len(frequencies)
    j = torch.arange(pairs, device=frequencies.device)
    return frequencies * ratio ** (-j / max(pairs - 1, 1))


@dataclass(frozen=True)
class ProportionalScaling(Scaling):
    """Waves of a share of the pairs, as if all had one; the other pairs, those of the longest waves, do not turn
    (Gemma 4, 2026). Partial rotary positions stretch the waves over the pairs that turn; these do not.

    Attributes:
        share: of the pairs that turn.
        factor: positions are divided by it.
    """

    share: float = 1.0
    factor: float = 1.0

    def __call__(self, frequencies: Tensor, theta: float, length: Tensor) -> Tensor:
        turning = torch.arange(len(frequencies), device=frequencies.device) < int(self.share * len(frequencies))
        return torch.where(turning, frequencies / self.factor, 0.0)


@dataclass(frozen=True)
class YarnScaling(Scaling):
    """YaRN (Peng et al. 2023): a wave that turns more than `beta_fast` times within the old context is kept, one that
    turns less than `beta_slow` times is stretched by `factor`, between them the two are blended in proportion to j.
    Scores grow by magnitude^2, since more tokens share the softmax.

    Attributes:
        factor: how many times longer the context becomes.
        original_max_position_embeddings: the context of training.
        beta_fast, beta_slow: turns.
        attention_factor: factor of cosines and sines; 0.1 ln(factor) + 1 when None.
        mscale, mscale_all_dim: DeepSeek's form of it, (0.1 mscale ln s + 1) / (0.1 mscale_all_dim ln s + 1).
        truncate: whether the blend begins and ends at whole j.
    """

    factor: float = 1.0
    original_max_position_embeddings: int = 2048
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True

    def __call__(self, frequencies: Tensor, theta: float, length: Tensor) -> Tensor:
        first, last = self.blended(2 * len(frequencies), theta)
        j = torch.arange(len(frequencies), dtype=torch.float32, device=frequencies.device)
        stretched = ((j - first) / (last - first)).clamp(0, 1)  # 0: kept, 1: stretched
        return frequencies / self.factor * stretched + frequencies * (1 - stretched)

    def blended(self, dim: int, theta: float) -> tuple[float, float]:
        """The j where the blend begins and ends: wave j turns beta times in the old context L when
        j = dim ln(L / (2 pi beta)) / (2 ln theta).
        """
        first, last = (
            dim * math.log(self.original_max_position_embeddings / (2 * math.pi * beta)) / (2 * math.log(theta))
            for beta in (self.beta_fast, self.beta_slow)
        )
        if self.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, dim - 1)
        return first, last + 0.001 if first == last else last

    @property
    def magnitude(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return self._temper(self.mscale) / self._temper(self.mscale_all_dim)
        return self._temper(1.0)

    def _temper(self, weight: float) -> float:
        return 0.1 * weight * math.log(self.factor) + 1 if self.factor > 1 else 1.0


@dataclass(frozen=True)
class LongRopeScaling(Scaling):
    """LongRoPE (Ding et al. 2024; Phi-3 128k): each frequency is divided by a factor of its own, from one list up to
    the context of training and from another beyond it.

    Attributes:
        short_factor, long_factor: dim / 2 numbers each.
        factor: the new context by the old one.
        original_max_position_embeddings: the old one.
        attention_factor: factor of cosines and sines; sqrt(1 + ln(factor) / ln(old context)) when None.
    """

    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    factor: float = 1.0
    original_max_position_embeddings: int = 4096
    attention_factor: float | None = None

    def __call__(self, frequencies: Tensor, theta: float, length: Tensor) -> Tensor:
        short, long = (torch.tensor(f, device=frequencies.device) for f in (self.short_factor, self.long_factor))
        return frequencies / torch.where(length > self.original_max_position_embeddings, long, short)

    @property
    def magnitude(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        if self.factor <= 1:
            return 1.0
        return math.sqrt(1 + math.log(self.factor) / math.log(self.original_max_position_embeddings))
