"""Rotary position embedding (Su et al. 2021, RoFormer).

Pair j of a head's features is rotated by the angle  position * theta^(-2j / dim),  so that the product of a rotated
query and a rotated key depends on their distance alone. Two layouts of the pairs are in use:

    half-split   (GPT-NeoX, Hugging Face Llama)   feature j is paired with feature j + dim/2
    interleaved  (RoFormer, Meta's Llama, GLM)    feature 2j is paired with feature 2j + 1

They are equal up to a fixed permutation of the features, `interleaved_to_half_split`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scaling:
    """How the frequencies are changed for contexts longer than those of training. This one changes nothing.

    `rotary_scaling.py` has those that do more than divide.
    """

    def __call__(self, frequencies: Tensor, theta: float, length: Tensor) -> Tensor:
        """Theta^(-2j / dim), float32 (dim / 2,), and the tokens of the longest row, () int64 -> changed frequencies."""
        return frequencies

    @property
    def magnitude(self) -> float:
        """Factor of cosines and sines: scores grow by its square."""
        return 1.0


@dataclass(frozen=True)
class Llama3Scaling(Scaling):
    """Llama 3.1's stretch of the long wavelengths (Grattafiori et al. 2024): short ones are kept, long ones divided by
    `factor`, those between are blended.
    """

    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192

    def __call__(self, frequencies: Tensor, theta: float, length: Tensor) -> Tensor:
        wavelengths = 2 * math.pi / frequencies
        turns = self.original_max_position_embeddings / wavelengths
        # blend = 1 keeps a frequency, 0 divides it by the factor
        blend = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        blend = blend.clamp(0, 1)
        return (1 - blend) * frequencies / self.factor + blend * frequencies


@dataclass(frozen=True)
class LinearScaling(Scaling):
    """Position interpolation (Chen et al. 2023): all positions are divided by `factor`."""

    factor: float = 1.0

    def __call__(self, frequencies: Tensor, theta: float, length: Tensor) -> Tensor:
        return frequencies / self.factor


@dataclass(frozen=True)
class Rope:
    """Rotates the first `dim` features of each head. It holds no tensors: tables are computed once per forward call.

    Attributes:
        dim: rotated features of a head, even; the rest pass unchanged (partial RoPE).
        theta: base of the wavelengths.
        interleaved: pair neighbours instead of halves.
        scaling: changes the frequencies, for contexts longer than those seen in training.

    ChatGLM turns half of each head (`dim` = d / 2, interleaved) and multiplies theta by its `rope_ratio`.
    """

    dim: int
    theta: float = 10_000.0
    interleaved: bool = False
    scaling: Scaling | None = None

    def frequencies(self, device: torch.device | None = None, length: Tensor | int = 1) -> Tensor:
        """theta^(-2j / dim) for j = 0 .. dim/2 - 1, scaled, float32, (dim / 2,). `length`: of the longest row."""
        exponents = torch.arange(0, self.dim, 2, dtype=torch.int64, device=device).float() / self.dim
        frequencies = 1.0 / self.theta**exponents
        if self.scaling is None:
            return frequencies
        return self.scaling(frequencies, self.theta, torch.as_tensor(length, device=device))

    def tables(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines, computed in float32. (B, T) -> twice (B, T, 1, dim / 2)"""
        length = 1 if self.scaling is None else positions.max() + 1
        angles = positions[..., None].float() * self.frequencies(positions.device, length)
        cos, sin = angles.cos(), angles.sin()
        if self.scaling is not None:
            cos, sin = cos * self.scaling.magnitude, sin * self.scaling.magnitude
        return cos[:, :, None].to(dtype), sin[:, :, None].to(dtype)

    def rotate(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        """(B, T, H, d) -> (B, T, H, d)"""
        cos, sin = tables
        if self.dim == x.shape[-1]:
            return self._rotate(x, cos, sin)
        turned = self._rotate(x[..., : self.dim], cos, sin)
        return torch.cat((turned, x[..., self.dim :]), dim=-1)

    def _rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        # (a, b) -> (a cos - b sin, b cos + a sin)
        if self.interleaved:
            a, b = x[..., 0::2], x[..., 1::2]
            return torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


@dataclass(frozen=True)
class PairRope:
    """GLM's rotary positions of two kinds (Du et al. 2022; ChatGLM-6B): the first half of a head is turned by the
    position in the text, the second half by the position in the blank, each half in half-split layout.

    Attributes:
        dim: d, a multiple of 4.
        theta: base of the wavelengths of each half.
        scaling: changes the frequencies of both halves.
    """

    dim: int
    theta: float = 10_000.0
    scaling: Scaling | None = None

    @property
    def half(self) -> Rope:
        """The rotation of one half."""
        return Rope(self.dim // 2, self.theta, scaling=self.scaling)

    def tables(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(B, T, 2), or (B, T) where all are outside blanks -> twice (B, T, 1, dim / 2): both halves' side by side"""
        text, blank = (positions, torch.zeros_like(positions)) if positions.ndim == 2 else positions.unbind(-1)
        both = [self.half.tables(kind, dtype) for kind in (text, blank)]
        return torch.cat((both[0][0], both[1][0]), -1), torch.cat((both[0][1], both[1][1]), -1)

    def rotate(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        """(B, T, H, d) -> (B, T, H, d)"""
        (cos1, cos2), (sin1, sin2) = (table.chunk(2, -1) for table in tables)
        text, blank = x.chunk(2, dim=-1)
        return torch.cat((self.half.rotate(text, (cos1, sin1)), self.half.rotate(blank, (cos2, sin2))), dim=-1)


def decay_bound(rope: Rope, distances: Tensor) -> Tensor:
    """How large a score may still be at a distance, relative to distance 0 (Su et al. 2021, section 3.4.3): the mean
    of |S_1|, ..., |S_(dim/2)|, where S_j = sum_(k < j) e^(i distance f_k) is what summation by parts leaves of it.

    (N,) -> (N,) float64
    """
    angles = distances[:, None].double() * rope.frequencies().double()  # (N, dim / 2)
    sums = torch.polar(torch.ones_like(angles), angles).cumsum(-1)
    return sums.abs().mean(-1) / sums.new_ones(angles.shape[-1]).cumsum(0).abs().mean()


def mean_score(rope: Rope, distances: Tensor) -> Tensor:
    """The score of two equal vectors at a distance, relative to distance 0: the mean of cos(distance f_j) over j.

    (N,) -> (N,) float64
    """
    return (distances[:, None].double() * rope.frequencies().double()).cos().mean(-1)


def interleaved_to_half_split(weight: Tensor, num_heads: int) -> Tensor:
    """Reorder the output features of a query or key projection so that half-split rotation equals interleaved rotation
    of the original. Its inverse is `half_split_to_interleaved`. (H * d, ...) -> (H * d, ...)
    """
    heads = weight.unflatten(0, (num_heads, -1, 2))  # (H, d/2, 2, ...)
    return heads.transpose(1, 2).flatten(0, 2)


def half_split_to_interleaved(weight: Tensor, num_heads: int) -> Tensor:
    """The inverse of `interleaved_to_half_split`."""
    heads = weight.unflatten(0, (num_heads, 2, -1))  # (H, 2, d/2, ...)
    return heads.transpose(1, 2).flatten(0, 2)
