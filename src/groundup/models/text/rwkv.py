"""What all versions of RWKV share: a language model without attention over all tokens, whose blocks carry a state of
fixed size from token to token. In training all tokens of a text are computed at once.
"""

import math
from typing import Any

import torch
from torch import nn

from groundup.layers import init
from groundup.layers.embedding import Embedding
from groundup.layers.norms import LayerNorm
from groundup.layers.rwkv.block import MixingBlock, NormedEmbedding
from groundup.models.text.causal_lm import CausalLM
from groundup.state import LayerState, RecurrentState
from groundup.weights import Mapped, WeightMap, rule

ZERO = ("o_proj", "mlp.r_proj", "mlp.down_proj")
"""Matrices that begin at zero in all versions."""

LINE = Mapped(torch.flatten, lambda tensor: tensor.view(1, 1, -1))
"""A vector that the authors' files hold as (1, 1, D)."""
COLUMN = Mapped(torch.flatten, lambda tensor: tensor.view(-1, 1))
"""A vector that they hold as (D, 1)."""


class RWKV(CausalLM):
    """The frame; a version adds its `make_attention`, `make_mlp` and `parts`."""

    def make_embed(self) -> Embedding:
        return NormedEmbedding(self.config.vocab_size, self.config.hidden_size)

    def make_norm(self) -> nn.Module:
        return LayerNorm(self.config.hidden_size, self.config.layer_norm_epsilon)

    def make_block(self, i: int) -> nn.Module:
        return MixingBlock(self.make_norm(), self.make_attention(i), self.make_norm(), self.make_mlp(i))

    def make_layer_state(self, i: int, max_len: int) -> dict[str, LayerState]:
        """Two vectors for the token before, and the state of time mixing; `max_len` plays no part."""
        states: dict[str, Any] = {"attn": RecurrentState(), "mlp": RecurrentState()}
        return states

    def init_weights(self) -> None:
        """Orthogonal matrices, the head at half their size; tiny token vectors; what ends or gates a branch at zero, so
        that a new block passes its input on; decays and mixtures along curves (the authors' training code).
        """
        for name, module in self.named_modules():
            if isinstance(module, nn.Embedding):
                nn.init.uniform_(module.weight, -1e-4, 1e-4)
            elif isinstance(module, nn.Linear):
                tallness = math.sqrt(max(1.0, module.out_features / module.in_features))
                init.orthogonal(module.weight, 0.5 * tallness if name == "lm_head" else self.gain(name, tallness))
            elif hasattr(module, "init_curves"):
                layer = int(name.split(".")[1])
                module.init_curves(layer, self.config.num_hidden_layers)  # type: ignore[operator]

    def gain(self, name: str, tallness: float) -> float:
        """How large a matrix of a block begins; tallness is the root of rows / columns, at least 1."""
        return 0.0 if name.endswith((*ZERO, "attn.k_proj", "attn.r_proj")) else tallness

    @classmethod
    def parts(cls, config: Any) -> dict[str, Any]:
        """The authors' names of a version's own tensors: within a block, ours -> theirs, or (theirs, operation)."""
        raise NotImplementedError

    @classmethod
    def weight_map(cls, config: Any) -> WeightMap:
        """The names of the authors' .pth files."""
        return published_map(cls.parts(config), config.num_hidden_layers)


MATRICES = {
    "attn.r_proj": "att.receptance",
    "attn.k_proj": "att.key",
    "attn.v_proj": "att.value",
    "attn.o_proj": "att.output",
    "mlp.r_proj": "ffn.receptance",
    "mlp.up_proj": "ffn.key",
    "mlp.down_proj": "ffn.value",
}


def published_map(parts: dict[str, Any], layers: int, ignore: tuple[str, ...] = ()) -> WeightMap:
    """The names in BlinkDL's files: what all versions have, and a version's own parts."""
    names = {"norm1": "ln1", "norm2": "ln2"} | MATRICES | parts
    pairs = {ours: theirs if isinstance(theirs, tuple) else (theirs, None) for ours, theirs in names.items()}
    return WeightMap(
        rule("embed.tokens", "emb"),
        rule("embed.norm", "blocks.0.ln0"),
        rule("norm", "ln_out"),
        rule("lm_head", "head"),
        *(rule(f"blocks.{{i}}.{ours}", f"blocks.{{i}}.{name}", op) for ours, (name, op) in pairs.items()),
        ignore=ignore,
        i=layers,
    )


def lines(ours: str, theirs: str, names: str) -> dict[str, tuple[str, Mapped]]:
    """Vectors that they hold as (1, 1, D): `lines("attn.mix_", "att.time_mix_", "kvr")`."""
    return {ours + name: (theirs + name, LINE) for name in names}
