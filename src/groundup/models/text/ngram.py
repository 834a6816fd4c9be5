"""The n-gram language model (Shannon 1948; Jelinek 1976): the next token given the n - 1 before it, by counting.

Its parameters are logarithms of probabilities and back-off weights, not matrices. It is built as every decoder is, so
it loads, generates and is measured like them: the one block gives the last n - 1 ids at each position, and the head
looks up what follows them.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from groundup.layers.context import Context
from groundup.layers.window import Window
from groundup.models.configs.ngram import NGramConfig, StupidBackoff
from groundup.models.ngrams.counts import Symbols
from groundup.models.ngrams.smoothing import Tables, smooth
from groundup.models.text.causal_lm import CausalLM
from groundup.state import LayerState, RecurrentState
from groundup.weights import WeightMap, rule


class Ids(nn.Module):
    """The ids themselves, in place of an embedding."""

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return x


class History(nn.Module):
    """The last n - 1 ids at each position; `start` stands before a document. (B, T) -> (B, T, n - 1)

    Args:
        width: n - 1; at least one id is given, which an order of 1 does not look at.
        start: the symbol before a document.
        ends: ids after which a new document begins.
    """

    layout: ClassVar[str] = "window"

    def __init__(self, width: int, start: int, ends: Sequence[int]):
        super().__init__()
        self.window, self.start, self.ends = Window(max(1, width), start), start, tuple(ends)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        last = self.window(x, context)
        for end in self.ends:
            # whatever has an end at or behind it belongs to an earlier document
            ended = (last == end).flip(-1).cummax(-1).values.flip(-1)
            last = torch.where(ended, self.start, last)
        return last


class Order(nn.Module):
    """One order's table: which k-grams were seen, their log-probabilities, and their contexts' back-off weights."""

    keys: Tensor

    def __init__(self, grams: int, contexts: int):
        super().__init__()
        self.register_buffer("keys", torch.zeros(grams, dtype=torch.int64))
        self.seen = nn.Parameter(torch.zeros(grams))
        self.back_off = nn.Parameter(torch.zeros(contexts))


class NGramHead(nn.Module):
    """Log-probabilities of what follows a history. (..., n - 1) int64 -> (..., V)"""

    def __init__(self, config: NGramConfig):
        super().__init__()
        self.vocabulary = config.vocab_size
        self.unseen = 0.0
        if isinstance(config.smoothing, StupidBackoff):
            self.unseen = math.log(config.smoothing.alpha)
        sizes = zip(config.grams, [1, *config.grams], strict=False)  # a (k-1)-gram is a context of k-grams
        self.orders = nn.ModuleList(Order(grams, contexts) for grams, contexts in sizes)

    def forward(self, history: Tensor) -> Tensor:
        past = history.reshape(-1, history.shape[-1])  # (M, n - 1)
        dtype = next((p.dtype for p in self.parameters()), torch.float32)
        scores = torch.full((len(past), self.vocabulary), -math.log(self.vocabulary), dtype=dtype, device=past.device)
        tables: list[Any] = list(self.orders)
        for k, table in enumerate(tables):
            context = self._find(past[:, past.shape[1] - k :])  # (M,) the number of the last k ids
            weight = torch.where(context >= 0, table.back_off[context.clamp(min=0)], self.unseen)
            scores = self._with_seen(table, context, scores + weight[:, None])
        return scores.view(*history.shape[:-1], self.vocabulary)

    def _find(self, past: Tensor) -> Tensor:
        """The number of each row's k-gram, (M, k) -> (M,); -1 for one that was never seen."""
        number = torch.zeros(len(past), dtype=torch.int64, device=past.device)
        for table, symbol in zip(self.orders, past.T, strict=False):
            wanted = number * (self.vocabulary + 1) + symbol
            keys: Tensor = table.keys  # type: ignore[assignment]
            at = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
            number = torch.where((number >= 0) & (keys[at] == wanted), at, -1)
        return number

    def _with_seen(self, table: Order, context: Tensor, scores: Tensor) -> Tensor:
        """The scores (M, V) with those symbols set that were seen after the context."""
        base = context * (self.vocabulary + 1)
        first = torch.searchsorted(table.keys, base)
        # the start symbol, V, is the last of a context's keys and is never predicted
        count = torch.where(context >= 0, torch.searchsorted(table.keys, base + self.vocabulary) - first, 0)
        row = torch.repeat_interleave(torch.arange(len(context), device=context.device), count)
        place = torch.arange(len(row), device=context.device) - (count.cumsum(0) - count)[row] + first[row]
        symbol = table.keys[place] - base[row]
        return scores.index_put((row, symbol), table.seen[place].to(scores.dtype))


class NGramLM(CausalLM):
    """An n-gram model. `learn` makes one from documents; a new one without counts finds all tokens alike."""

    Config = NGramConfig
    config: NGramConfig

    def make_embed(self) -> Any:
        return Ids()

    def make_block(self, i: int) -> nn.Module:
        c = self.config
        named = [c.kept.get(f"{part}_token_id") for part in ("bos", "eos")]
        return History(c.order - 1, c.vocab_size, sorted({id for id in named if isinstance(id, int)}))

    def make_norm(self) -> nn.Module:
        return nn.Identity()

    def make_head(self) -> nn.Module:
        return NGramHead(self.config)

    def make_layer_state(self, i: int, max_len: int) -> dict[str, LayerState]:
        return {"window": RecurrentState()}  # type: ignore[dict-item]

    def init_weights(self) -> None:
        """Nothing: probabilities are counted."""

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        return next((p.dtype for p in self.parameters()), torch.float32)

    @classmethod
    def learn(cls, config: NGramConfig, documents: Sequence[Symbols]) -> Self:
        """Count and smooth the n-grams of documents (token ids, or bytes)."""
        return cls.from_tables(config, smooth(documents, config.order, config.vocab_size, config.smoothing))

    @classmethod
    @torch.no_grad()
    def from_tables(cls, config: NGramConfig, tables: Tables) -> Self:
        """The model of these tables."""
        model = cls(config.model_copy(update={"grams": [len(table.keys) for table in tables.orders]}))
        with np.errstate(divide="ignore"):
            for order, table in zip(model.lm_head.orders, tables.orders, strict=True):  # type: ignore[union-attr, arg-type]
                order.keys.copy_(torch.from_numpy(table.keys))
                order.seen.copy_(torch.from_numpy(np.log(table.seen)))
                order.back_off.copy_(torch.from_numpy(np.log(table.back_off)))
        return model.eval()

    @classmethod
    def weight_map(cls, config: NGramConfig) -> WeightMap:
        return WeightMap(rule("lm_head.orders.{k}", "orders.{k}"), k=len(config.grams))
