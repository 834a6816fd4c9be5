"""The feed-forward neural language model (Bengio, Ducharme, Vincent & Jauvin 2003): words have vectors, learned with
the model, and a network over the last n - 1 of them gives the next word. Words that are used alike get vectors alike,
so that a sentence never seen is likely if it is made of likely parts; an n-gram model cannot know that.

    x = (C(w_{t-1}), C(w_{t-2}), ..., C(w_{t-n+1}))
    y = b + W x + U tanh(d + H x)                    p(w_t | ...) = softmax(y)

W is zero without direct connections. Before the begin of a text stand zero vectors.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from groundup.layers.context import Context
from groundup.layers.embedding import Embedding
from groundup.layers.window import Window
from groundup.models.configs.bengio import BengioConfig
from groundup.models.text.causal_lm import CausalLM
from groundup.state import LayerState, RecurrentState
from groundup.weights import WeightMap, rule


class HiddenLayer(nn.Module):
    """tanh(d + H x) over the last n - 1 vectors, and x itself behind it where it is wanted.

    (B, T, m) -> (B, T, h), or (B, T, h + (n - 1) m)
    """

    layout: ClassVar[str] = "window hidden"

    def __init__(self, order: int, dim: int, hidden: int, direct: bool):
        super().__init__()
        self.window, self.direct = Window(order - 1), direct
        self.hidden = nn.Linear((order - 1) * dim, hidden)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        x = self.window(x, context).flip(-2).flatten(-2)  # (B, T, (n - 1) m), the last word first
        a = self.hidden(x).tanh()
        return torch.cat((a, x), dim=-1) if self.direct else a


class FeedForwardLM(CausalLM):
    """The model of 2003."""

    Config = BengioConfig
    config: BengioConfig

    def make_embed(self) -> Embedding:
        return Embedding(self.config.vocab_size, self.config.embedding_size)

    def make_block(self, i: int) -> nn.Module:
        c = self.config
        return HiddenLayer(c.order, c.embedding_size, c.hidden_size, c.direct)

    def make_norm(self) -> nn.Module:
        return nn.Identity()

    def make_head(self) -> nn.Module:
        c = self.config
        return nn.Linear(c.hidden_size + c.direct * (c.order - 1) * c.embedding_size, c.vocab_size)  # [U W], b

    def make_layer_state(self, i: int, max_len: int) -> dict[str, LayerState]:
        return {"window": RecurrentState()}  # type: ignore[dict-item]

    @torch.no_grad()
    def init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                bound = module.in_features**-0.5
                module.weight.uniform_(-bound, bound)
                module.bias.zero_()
            elif isinstance(module, nn.Embedding):
                module.weight.uniform_(-1, 1)

    @classmethod
    def weight_map(cls, config: BengioConfig) -> WeightMap:
        return WeightMap(rule("embed.tokens", "C"), rule("blocks.0.hidden", "H"), rule("lm_head", "UW"))
