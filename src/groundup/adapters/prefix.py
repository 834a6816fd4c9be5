"""Prefix tuning (Li & Liang 2021) and P-tuning v2 (Liu et al. 2022): keys and values learn, in every layer, that all
queries see before those of the text.

softmax(q [K_P ; K]^T / sqrt(d)) [V_P ; V]          K_P, V_P (n, d) a head, learned

With projection they come from a network while they learn: [K_P ; V_P] = W_layer tanh(W E), E (n, D).

The text's positions count on from n, as if n tokens stood before it. Windows, and biases of distance, do not concern
the prefix: it is seen by all.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from groundup.adapters.ahead import Ahead, embedding_of
from groundup.adapters.attach import adapters_of
from groundup.adapters.configs.prefix import PrefixConfig
from groundup.adapters.part import Part, placed_like
from groundup.adapters.plan import Plan
from groundup.base.errors import UsageError
from groundup.layers.attention import AttentionCore
from groundup.layers.masks import Mask


class Taken(Ahead):
    """The positions that a prefix takes, and with projection what its layers share: W and E."""

    def __init__(self, length: int):
        super().__init__()
        self.taken = length


class Trunk(Taken):
    """tanh(W E), (n, width)."""

    def __init__(self, length: int, dim: int, width: int, where: dict[str, Any]):
        super().__init__(length)
        self.embedding = nn.Embedding(length, dim, **where)
        self.inner = nn.Linear(dim, width, **where)

    def forward(self) -> Tensor:
        """(n, width)"""
        return self.inner(self.embedding.weight).tanh()


class Prefix(Part):
    """The prefix of one layer, in front of the keys and values of its attention core.

    Args:
        length: n.
        k, v: shapes of the layer's keys and values of one token, (K, d) each.
        where: device and dtype.
        trunk: what the layers share with projection, or None.
    """

    trunk: Trunk | None

    def __init__(
        self, length: int, k: tuple[int, int], v: tuple[int, int], where: dict[str, Any], trunk: Trunk | None = None
    ):
        super().__init__()
        self.length, self.shapes = length, (k, v)
        self.__dict__["trunk"] = trunk  # its home is the model's `prompt`
        width = k[0] * k[1] + v[0] * v[1]
        if trunk is None:
            self.key_values = nn.Parameter(torch.randn(length, width, **where))
        else:
            self.outer = nn.Linear(trunk.inner.out_features, width, **where)

    def pair(self) -> tuple[Tensor, Tensor]:
        """Keys and values, (K, n, d) each."""
        flat = self.key_values if self.trunk is None else self.outer(self.trunk())  # (n, K d + K d)
        (heads, d), (value_heads, value_d) = self.shapes
        k, v = flat.split((heads * d, value_heads * value_d), dim=-1)
        return k.unflatten(-1, (heads, d)).transpose(0, 1), v.unflatten(-1, (value_heads, value_d)).transpose(0, 1)

    def before(self, base: nn.Module, *args: Any) -> tuple[Any, ...]:
        q, k, v, mask = args
        mine, values = (t.expand(len(k), -1, -1, -1) for t in self.pair())  # (B, K, n, d)
        return q, _joined(mine, k), _joined(values, v), seen_by_all(mask, self.length, q, k)

    @classmethod
    def before_rows(cls, parts: Sequence[Part | None], rows: Tensor, base: nn.Module, *args: Any) -> tuple[Any, ...]:
        q, k, v, mask = args
        if len(q) != len(rows):
            raise UsageError(f"adapters are chosen for {len(rows)} rows, but {len(q)} arrive")
        lengths = [getattr(part, "length", 0) for part in parts] + [0]  # the last is for rows without any
        longest = max(lengths)
        tables = []
        for t, which in ((k, 0), (v, 1)):
            empty = t.new_zeros(len(lengths), t.shape[1], longest, t.shape[3])
            for number, part in enumerate(parts):
                if isinstance(part, Prefix):
                    empty[number, :, : part.length] = part.pair()[which].to(t.dtype)
            tables.append(empty[rows])  # (B, K, longest, d)
        own = torch.arange(longest, device=q.device) < torch.tensor(lengths, device=q.device)[rows][:, None]
        mask = seen_by_all(mask, longest, q, k, own[:, None, None])
        return q, _joined(tables[0], k), _joined(tables[1], v), mask

    @torch.no_grad()
    def baked(self) -> "Prefix":
        """The same keys and values without the network."""
        flat = self.key_values if self.trunk is None else self.outer(self.trunk())
        new = Prefix(self.length, *self.shapes, {"device": flat.device, "dtype": flat.dtype})
        new.key_values.copy_(flat)
        return new.train(self.training)


def _joined(prefix: Tensor, own: Tensor) -> Tensor:
    return torch.cat((prefix.to(own.dtype), own), dim=2)


def seen_by_all(mask: Mask, n: int, q: Tensor, k: Tensor, own: Tensor | None = None) -> Mask:
    """The mask for n keys more in front, without bias, that every query sees; or those that `own` names.

    Args:
        mask: of queries and keys.
        n: keys in front.
        q: (B, H, T, d).
        k: (B, K, S, d), without those in front.
        own: (B, 1, 1, n) bool, or None.
    """
    queries, keys = q.shape[2], k.shape[2]
    if own is None and not mask.causal and mask.allowed is None and mask.bias is None:
        return mask
    front = torch.ones(1, 1, 1, n, dtype=torch.bool, device=q.device) if own is None else own
    allowed, bias = None, None
    if mask.bias is not None:
        nothing = torch.zeros(front.shape, dtype=mask.bias.dtype, device=q.device).masked_fill(~front, -torch.inf)
        bias = _beside(nothing, mask.bias, queries, keys)
    if mask.allowed is not None or mask.bias is None:
        allowed = _beside(front, mask.dense(queries, keys, q.device), queries, keys)
    return replace(mask, causal=False, allowed=allowed, bias=bias)


def _beside(front: Tensor, rest: Tensor, queries: int, keys: int) -> Tensor:
    """(.., .., 1, n) and (.., .., T or 1, S or 1) -> (.., .., T, n + S)"""
    batch, heads = max(len(front), len(rest)), max(front.shape[1], rest.shape[1])
    front = front.expand(batch, heads, queries, front.shape[-1])
    return torch.cat((front, rest.expand(batch, heads, queries, keys)), dim=-1)


# -- plans ------------------------------------------------------------------------------------------------------------


def plan(model: Any, config: PrefixConfig, run: Callable[[], Any] | None = None) -> Plan:
    """A prefix for every attention core.

    Args:
        model: any model with cores.
        config: the settings.
        run: calls the model with one token, or with the tokens of `config.ids`; by default as a language model. Give
            one for a model that is called in another way (encoder and decoder).

    Raises:
        UsageError: the model has no core.
    """
    ids = torch.tensor([config.ids or [0]], device=next(model.parameters()).device)
    with _keys_and_values(model, config.layers) as seen, adapters_of(model).using():
        (lambda: model(ids))() if run is None else run()
    if not seen:
        raise UsageError(
            f"{type(model).__name__} has no attention core in the wanted layers, so no place for keys and values: "
            f"{config.kind} does not fit it"
        )
    if config.ids and config.length != len(config.ids):
        raise UsageError(f"a prefix of {config.length} does not hold {len(config.ids)} tokens")
    taken: Taken = Taken(config.length)
    if config.projection:
        embed = embedding_of(model, config.kind)
        dim = config.dim or int(embed.vectors(ids[:, :1]).shape[-1])
        taken = Trunk(config.length, dim, config.hidden or dim, placed_like(embed))
    trunk = taken if isinstance(taken, Trunk) else None
    parts: dict[str, Part] = {}
    for name, (k, v, where) in seen.items():
        part = Prefix(config.length, (k.shape[1], k.shape[3]), (v.shape[1], v.shape[3]), where, trunk)
        if config.ids:
            flat = [t[0].transpose(0, 1).flatten(1) for t in (k, v)]  # (n, K d)
            part.key_values.data.copy_(torch.cat(flat, dim=-1))
        elif config.init == "zero":
            for parameter in part.parameters():
                nn.init.zeros_(parameter)
        parts[name] = part
    return Plan(parts, _head(model) if config.head else (), taken if hasattr(model, "prompt") else None)


def _head(model: Any) -> tuple[str, ...]:
    own = {id(p) for p in model.lm_head.parameters()}
    return tuple(name for name, p in model.named_parameters() if id(p) in own)


@contextmanager
def _keys_and_values(model: nn.Module, layers: list[int] | None) -> Iterator[dict[str, Any]]:
    """What the cores of some layers are called with inside, by name: keys, values, and where new weights go."""
    seen: dict[str, Any] = {}

    def look(name: str, home: nn.Module) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            seen[name] = (args[1], args[2], placed_like(home) | {"device": args[1].device})

        return hook

    wanted = None if layers is None else tuple(f"blocks.{i}." for i in layers)
    cores = [(n, m) for n, m in model.named_modules() if isinstance(m, AttentionCore)]
    handles = [
        core.register_forward_pre_hook(look(name, model.get_submodule(name.rpartition(".")[0])))
        for name, core in cores
        if wanted is None or name.startswith(wanted)
    ]
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield seen
    finally:
        for handle in handles:
            handle.remove()
        for module in training:
            module.training = True
