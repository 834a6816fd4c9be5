"""Attention of one token a row in one compiled call."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from groundup.generation.few_rows.kinds import ALL_HEADS, EACH_HEAD
from groundup.generation.few_rows.linear import MOST_ROWS, address, kernels, rows_of, same_weights, stored_of
from groundup.generation.few_rows.norms import KINDS, FewRowsNorm, NormPlan
from groundup.layers.attention import Attention, AttentionCore
from groundup.layers.attention_sinks import SinkCore
from groundup.layers.context import Context
from groundup.layers.logn_attention import LogNAttention
from groundup.layers.masks import Causal
from groundup.layers.norms import AllHeadsNorm
from groundup.layers.position_bias import ALiBi
from groundup.layers.rope import Rope
from groundup.layers.soft_cap import CappedAttentionCore
from groundup.state import KVCache, RollingKVCache

NOT_TURNED = np.empty((1, 0), np.float32)


def attends_plainly(attn: Any) -> bool:
    """Whether the compiled step computes what this attention does."""
    if type(attn) not in (Attention, LogNAttention):
        return False
    norms = [_inner(norm) for norm in (attn.q_norm, attn.k_norm) if norm is not None]
    return (
        type(attn.core) in (AttentionCore, CappedAttentionCore, SinkCore)
        and type(attn.mask) is Causal
        and (attn.position_bias is None or type(attn.position_bias) is ALiBi)
        and (attn.rope is None or type(attn.rope) is Rope)
        and len(norms) in (0, 2)
        and all(type(norm) in KINDS for norm in norms)
        and len({(type(norm), norm.eps) for norm in norms}) < 2
        and type(attn.q_norm) is type(attn.k_norm)
        and same_weights([attn.q_proj, attn.k_proj, attn.v_proj, attn.o_proj])
    )


def _inner(norm: Any) -> Any:
    """The norm itself, of a norm over all heads or one that was exchanged already."""
    while type(norm) in (AllHeadsNorm, FewRowsNorm):
        norm = norm.norm
    return norm


class FewRowsAttention(nn.Module):
    """Attention for single tokens; anything else goes through the attention it was made from. (B, T, D) -> (B, T, D)"""

    def __init__(self, attn: Any):
        super().__init__()
        self.attn = attn
        projections = attn.q_proj, attn.k_proj, attn.v_proj, attn.o_proj
        d = attn.head_dim
        self.stored = [stored_of(p) for p in projections]
        heads, kv_heads = (one.shape[0] // d for one in self.stored[:2])
        self.q_norm, self.k_norm = NormPlan(_inner(attn.q_norm)), NormPlan(_inner(attn.k_norm))
        self.slopes = self._slopes(attn.position_bias)
        self.sinks = attn.core.sinks.detach().float() if type(attn.core) is SinkCore else None
        over = ALL_HEADS if type(attn.q_norm) is AllHeadsNorm else EACH_HEAD
        interleaved = attn.rope is not None and attn.rope.interleaved
        scale, cap = attn.core.scale, getattr(attn.core, "cap", 0.0)
        self.plan = (
            (tuple(one.address for one in self.stored), tuple(address(p.bias) for p in projections)),
            (
                (self.q_norm.kind, over, self.q_norm.eps),
                (self.q_norm.weight, self.q_norm.bias, self.k_norm.weight, self.k_norm.bias),
            ),
            (heads, kv_heads, d, int(interleaved), attn.mask.window or 0),
            (np.float32(d**-0.5 if scale is None else scale), np.float32(cap)),
            (address(self.slopes), address(self.sinks)),
        )
        self.like = self.stored[0].like

    def _slopes(self, bias: Any) -> Tensor | None:
        """What a token of distance takes from the score, for each head."""
        return None if bias is None else bias.scale * bias.slopes(torch.device("cpu"))

    @property
    def mask(self) -> Any:
        """As of the attention inside: what a state is made from."""
        return self.attn.mask

    @property
    def memory(self) -> str:
        """As of the attention inside."""
        return self.attn.memory

    def forward(self, x: Tensor, context: Context) -> Tensor:
        if not self.takes(x, context):
            return self.attn(x, context)
        h = rows_of(x)
        out = torch.empty_like(h)
        call = self.call(context)
        compiled = kernels()
        with compiled.one_at_a_time:
            compiled.attention_step(*self.plan, h.numpy(), out.numpy(), *call, self.like)
        return out[:, None]

    def takes(self, x: Tensor, context: Context) -> bool:
        """Whether this call is a step that the compiled function knows."""
        if x.shape[1] != 1 or len(x) > MOST_ROWS or context.fresh or context.documents is not None:
            return False
        if type(context.state.layers[self.attn.path]) not in (KVCache, RollingKVCache):  # type: ignore[union-attr]
            return False
        # queries beyond the length of training are sharpened there
        return type(self.attn) is not LogNAttention or context.placement.length <= self.attn.trained_length  # type: ignore[union-attr]

    def call(self, context: Context) -> tuple[Any, ...]:
        """What the compiled function needs of this call: cosines and sines, slots, keys and values, and the ring."""
        placement = context.placement
        assert context.state is not None
        assert placement is not None
        k, v, size = context.state.layers[self.attn.path].claim(placement)  # type: ignore[attr-defined]
        turned = (NOT_TURNED, NOT_TURNED)
        if self.attn.rope is not None:
            cosines, sines = context.rotation(self.attn.rope, torch.float32)
            turned = (cosines[:, 0, 0].numpy(), sines[:, 0, 0].numpy())
        return turned, placement.slots[:, 0].numpy(), (k.numpy(), v.numpy()), size
