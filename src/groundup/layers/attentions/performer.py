"""Performer (Choromanski et al. 2021), FAVOR+: softmax attention in linear time through random features.

    e^(q k) = E[phi(q) phi(k)]      phi(x) = e^(w x - |x|^2 / 2) / sqrt(m)      for each of m vectors w ~ N(0, I)

so that  sum_j e^(q k_j) v_j = phi(q) (sum_j phi(k_j) v_j^T):  the sum in brackets is one (m, d) matrix for all queries.

- Unbiased, and positive, so that the denominator cannot vanish, as it can with sines and cosines.
- Orthogonal w (each block of d of them) have the same mean and less variance.
- Causal by prefix sums: the matrix is that of the tokens so far. Training goes chunk by chunk; decoding adds one term a
  token, so what is remembered does not grow.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from groundup.base.errors import UsageError
from groundup.layers.attention import Attention
from groundup.layers.attentions.rows import real_tokens
from groundup.layers.context import Context
from groundup.layers.masks import Bidirectional, Causal


@dataclass(frozen=True)
class RandomFeatures:
    """The vectors w, which follow from these numbers: they are neither trained nor saved.

    Attributes:
        width: d.
        count: m.
        seed: another seed draws others.
        orthogonal: those of a block of d are orthogonal to each other, with lengths as independent ones have.
    """

    width: int
    count: int
    seed: int = 0
    orthogonal: bool = True

    def draw(self) -> Tensor:
        """(m, d) float32; each vector is N(0, I) by itself."""
        generator = torch.Generator().manual_seed(self.seed)
        normal = torch.randn(self.count, self.width, generator=generator)
        if not self.orthogonal:
            return normal
        blocks = torch.randn(-(-self.count // self.width), self.width, self.width, generator=generator)
        q, r = torch.linalg.qr(blocks)
        q = q * r.diagonal(dim1=1, dim2=2).sign()[:, None]  # signs make the rotation uniform (Mezzadri 2007)
        return q.mT.flatten(0, 1)[: self.count] * normal.norm(dim=1, keepdim=True)


def log_features(x: Tensor, w: Tensor) -> Tensor:
    """Log phi(x) without the constant 1 / sqrt(m):  w x - |x|^2 / 2. x (..., d), w (m, d) -> (..., m)"""
    return x @ w.T - x.square().sum(-1, keepdim=True) / 2


@dataclass
class Sums:
    """What all keys so far add up to, divided by e^top so that nothing overflows; it cancels in the result.

    Attributes:
        values: sum of phi(k) v^T, (B, K, m, d).
        ones: sum of phi(k), (B, K, m).
        top: the largest log phi(k) so far, (B, K, 1).
    """

    values: Tensor
    ones: Tensor
    top: Tensor

    @classmethod
    def empty(cls, log_k: Tensor, v: Tensor) -> "Sums":
        """Of no keys."""
        shape = (*log_k.shape[:2], log_k.shape[-1])
        return cls(v.new_zeros(*shape, v.shape[-1]), v.new_zeros(shape), v.new_full((*shape[:2], 1), -torch.inf))


def linear_attention(log_q: Tensor, log_k: Tensor, v: Tensor) -> Tensor:
    """Every query sees every key. log phi of q (B, K, G, T, m) and k (B, K, S, m), v (B, K, S, d) -> (B, K, G, T, d)"""
    sums = add(Sums.empty(log_k, v), log_k, v)
    phi_q = torch.exp(log_q - log_q.amax(-1, keepdim=True))
    return read(phi_q, sums)


def read(phi_q: Tensor, sums: Sums) -> Tensor:
    """phi(q) sum(phi(k) v^T) / phi(q) sum(phi(k)): (B, K, G, T, m) -> (B, K, G, T, d)"""
    total = phi_q @ sums.ones[:, :, None, :, None]
    return phi_q @ sums.values[:, :, None] / total.clamp(min=torch.finfo(total.dtype).tiny)


def add(sums: Sums, log_k: Tensor, v: Tensor) -> Sums:
    """The sums with further keys. log_k (B, K, S, m), -inf for padding; v (B, K, S, d)"""
    top = torch.maximum(sums.top, log_k.amax((-2, -1))[..., None])
    finite = torch.where(top == -torch.inf, 0.0, top)
    old, phi_k = torch.exp(sums.top - finite), torch.exp(log_k - finite[..., None])
    return Sums(sums.values * old[..., None] + phi_k.mT @ v, sums.ones * old + phi_k.sum(-2), top)


def causal_linear_attention(log_q: Tensor, log_k: Tensor, v: Tensor, sums: Sums, chunk: int) -> tuple[Tensor, Sums]:
    """Each query sees the keys up to its own: those of earlier chunks as sums, those of its chunk one by one.

    Shapes as in `linear_attention`; -> (B, K, G, T, d) and the sums after the last token.
    """
    results = []
    for start in range(0, v.shape[2], chunk):
        part = slice(start, start + chunk)
        after = add(sums, log_k[:, :, part], v[:, :, part])
        # One scale for the sums before the chunk and the chunk's own keys: that of `after`.
        finite = torch.where(after.top == -torch.inf, 0.0, after.top)
        phi_q = torch.exp(log_q[..., part, :] - log_q[..., part, :].amax(-1, keepdim=True))
        phi_k = torch.exp(log_k[:, :, part] - finite[..., None])
        old = torch.exp(sums.top - finite)
        pairs = (phi_q @ phi_k[:, :, None].mT).tril()  # (B, K, G, c, c)
        values = pairs @ v[:, :, None, part] + phi_q @ (sums.values * old[..., None])[:, :, None]
        total = pairs.sum(-1, keepdim=True) + phi_q @ (sums.ones * old)[:, :, None, :, None]
        results.append(values / total.clamp(min=torch.finfo(total.dtype).tiny))
        sums = after
    return torch.cat(results, -2), sums


class Performer(Attention):
    """Attention through random features, causal or not.

    Args:
        args, settings: as in Attention; `mask` is Causal() or Bidirectional(), and nothing can be dropped.
        num_features: m; more are closer to softmax attention. d log d is the order of what is needed.
        seed, orthogonal: see RandomFeatures.
        chunk: tokens whose pairs are computed one by one in causal training.
    """

    def __init__(
        self,
        *args: Any,
        num_features: int = 256,
        seed: int = 0,
        orthogonal: bool = True,
        chunk: int = 64,
        **settings: Any,
    ):
        super().__init__(*args, **settings)
        if self.mask not in (Causal(), Bidirectional()):
            raise UsageError(f"Performer sees all tokens, or all before: it cannot follow {self.mask}")
        if self.core.dropout:
            raise UsageError("Performer has no attention weights that could be dropped: dropout=0")
        self.features, self.chunk = RandomFeatures(self.head_dim, num_features, seed, orthogonal), chunk
        self.scale = self.head_dim**-0.5 if self.core.scale is None else self.core.scale
        del self.core  # there are no weights to observe
        self.memory = "sums" if self.mask == Causal() else "none"
        self._drawn: tuple[RandomFeatures, Tensor] | None = None

    def vectors(self, device: torch.device) -> Tensor:
        """The w of `features`, (m, d); drawn again when `features` or the device has changed."""
        if self._drawn is None or self._drawn[0] != self.features or self._drawn[1].device != device:
            self._drawn = (self.features, self.features.draw().to(device))
        return self._drawn[1]

    def mixed(self, x: Tensor, context: Context) -> Tensor:
        q, k, v = self.heads(x, context)
        real = real_tokens(context, "Performer")
        wide = torch.promote_types(q.dtype, torch.float32)
        w, root = self.vectors(q.device).to(wide), self.scale**0.5  # q and k share the division by sqrt(d)
        log_q = log_features(q.unflatten(1, (k.shape[1], -1)).to(wide) * root, w)  # (B, K, G, T, m)
        log_k = log_features(k.to(wide) * root, w)  # (B, K, T, m)
        if real is not None:
            log_k = log_k.masked_fill(~real[:, None, :, None], -torch.inf)
        y = self._attend(log_q, log_k, v.to(wide), context)
        return y.flatten(1, 2).to(q.dtype).transpose(1, 2).flatten(2)

    def _attend(self, log_q: Tensor, log_k: Tensor, v: Tensor, context: Context) -> Tensor:
        if self.mask == Bidirectional():
            if context.state is not None:
                raise UsageError("a Performer that sees later tokens has no state: give whole rows without one")
            return linear_attention(log_q, log_k, v)
        memory = None if context.state is None else context.state.layers[self.path]
        sums = Sums.empty(log_k, v)
        if memory is not None and memory.tensors and not context.fresh:
            sums = Sums(**memory.tensors)
        y, sums = causal_linear_attention(log_q, log_k, v, sums, self.chunk)
        if memory is not None:
            memory.tensors = vars(sums)
        return y
