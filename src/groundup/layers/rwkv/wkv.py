"""The weighted mean of all values so far, channel by channel: RWKV-2 to 4.

Each channel forgets at its own learned rate, and the newest token has a bonus u:

    wkv_t = (sum_{s<t} e^{(t-1-s) w + k_s} v_s  +  e^{u + k_t} v_t) / (the same without v),     w = -e^decay < 0
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.layers.rwkv.scan import linear_scan, scan
from groundup.layers.rwkv.stream import NEVER, Stream

K_CLAMP = 60.0
"""Largest key of versions 2 and 3: e^60 = 1e26."""


class WKV(NamedTuple):
    """What a channel remembers: sums of e^k v and of e^k, both divided by e^peak. (B, D) each

    Attributes:
        num, den: called aa and bb in the authors' code.
        peak: pp there; always 0 in versions 2 and 3.
    """

    num: Tensor
    den: Tensor
    peak: Tensor = torch.zeros(())

    @classmethod
    def empty(cls, k: Tensor, peak: float = NEVER) -> "WKV":
        """Nothing so far, for keys (B, T, D)."""
        zeros = torch.zeros_like(k[:, 0])
        return cls(zeros, zeros, torch.full_like(zeros, peak))


def stable_wkv(decay: Tensor, bonus: Tensor, k: Tensor, v: Tensor, state: WKV, stream: Stream) -> tuple[Tensor, WKV]:
    """RWKV-4's form, which no key can overflow: all sums are kept divided by their largest term (Peng et al. 2023, 4.1
    and appendix D).

    With p_t the largest exponent so far, which counts as a constant because it cancels,
        p_t = max(p_{t-1} + w, k_t)
        a_t = e^{p_{t-1} + w - p_t} a_{t-1} + e^{k_t - p_t} v_t         (b_t the same without v)
        q   = max(p_{t-1}, u + k_t)
        wkv_t = (e^{p_{t-1} - q} a_{t-1} + e^{u + k_t - q} v_t) / (e^{p_{t-1} - q} b_{t-1} + e^{u + k_t - q})

    Args:
        decay: (D,), log(-w).
        bonus: (D,), u.
        k: (B, T, D) float32.
        v: (B, T, D) float32.
        state: what earlier calls left.
        stream: documents and padding.

    Returns:
        wkv (B, T, D), and the state after the last real token.
    """
    w, k = _log_decay(decay, k, stream), _keys(k, stream)  # (B or 1, T, D), (B, T, D)
    if k.shape[1] == 1 and stream.starts is None:
        out, state = _one_token(w[:, 0], bonus, k[:, 0], v[:, 0], state)
        return out[:, None], state
    with torch.no_grad():
        p = scan(w, k, state.peak, torch.add, torch.maximum)
        before = torch.cat((state.peak[:, None], p[:, :-1]), dim=1)  # p_{t-1}
        seen = before if stream.starts is None else before.masked_fill(stream.starts[..., None], NEVER)
    keep, add = torch.exp(before + w - p), torch.exp(k - p)
    sums = linear_scan(keep[None], torch.stack((add * v, add)), torch.stack(state[:2]))  # (2, B, T, D)
    a, b = torch.cat((torch.stack(state[:2])[:, :, None], sums[:, :, :-1]), dim=2)
    with torch.no_grad():
        q = torch.maximum(seen, bonus + k)
    old, new = torch.exp(seen - q), torch.exp(bonus + k - q)
    out = (old * a + new * v) / (old * b + new)
    return out, WKV(sums[0, :, -1].detach(), sums[1, :, -1].detach(), p[:, -1])


def _one_token(w: Tensor, bonus: Tensor, k: Tensor, v: Tensor, state: WKV) -> tuple[Tensor, WKV]:
    """The formulas above as they stand, for a step of decoding: w (B or 1, D), k and v (B, D) -> (B, D)"""
    a, b, peak = state
    with torch.no_grad():
        p, q = torch.maximum(peak + w, k), torch.maximum(peak, bonus + k)
    old, new = torch.exp(peak - q), torch.exp(bonus + k - q)
    keep, add = torch.exp(peak + w - p), torch.exp(k - p)
    out = (old * a + new * v) / (old * b + new)
    return out, WKV((keep * a + add * v).detach(), (keep * b + add).detach(), p)


def clamped_wkv(
    decay: Tensor, bonus: Tensor, k: Tensor, v: Tensor, state: WKV, stream: Stream, eps: float
) -> tuple[Tensor, WKV]:
    """RWKV-2's and 3's form: keys end at 60, and eps keeps the denominator from 0.

        k <- e^{min(k, 60)}
        a = A + e^u k v,  b = B + e^u k,  wkv = a / (b + eps);    A <- e^w A + k v,  B <- e^w B + k

    Arguments and result as in `stable_wkv`; state.peak is 0.
    """
    keep = torch.exp(_log_decay(decay, k, stream)).expand(-1, k.shape[1], -1)
    k = torch.exp(_keys(k, stream).clamp(max=K_CLAMP))
    first, terms = torch.stack(state[:2]), torch.stack((k * v, k))
    sums = linear_scan(keep[None], terms, first)  # (2, B, T, D)
    old = torch.cat((first[:, :, None], sums[:, :, :-1]), dim=2)
    if stream.starts is not None:
        old = old.masked_fill(stream.starts[..., None], 0)
    a, b = old + torch.exp(bonus) * terms
    return a / (b + eps), WKV(sums[0, :, -1].detach(), sums[1, :, -1].detach(), state.peak)


def convolved_wkv(decay: Tensor, bonus: Tensor, k: Tensor, v: Tensor, eps: float) -> Tensor:
    """`clamped_wkv` of fresh rows as its authors trained it: a convolution of each channel along the text with the
    kernel [..., e^{2w}, e^w, 1, e^u]. (B, T, D) -> (B, T, D)
    """
    num_tokens, channels = k.shape[1:]
    distance = torch.arange(num_tokens - 2, -1, -1, device=k.device)  # how far back, but for the newest token
    w = -torch.exp(decay)[:, None]
    kernel = torch.exp(torch.cat((w * distance, bonus[:, None]), dim=1))[:, None]  # (D, 1, T)
    k = torch.exp(k.clamp(max=K_CLAMP))
    a, b = (F.conv1d(F.pad(x.mT, (num_tokens - 1, 0)), kernel, groups=channels).mT for x in (k * v, k))
    return a / (b + eps)


def _log_decay(decay: Tensor, k: Tensor, stream: Stream) -> Tensor:
    """W at every token: without end at the start of a document, 0 at padding. (B or 1, T, D)"""
    w = -torch.exp(decay).expand(1, k.shape[1], -1)
    if stream.starts is not None:
        w = w.masked_fill(stream.starts[..., None], NEVER)
    return w if stream.real is None else w.masked_fill(~stream.real[..., None], 0)


def _keys(k: Tensor, stream: Stream) -> Tensor:
    return k if stream.real is None else k.masked_fill(~stream.real[..., None], NEVER)
