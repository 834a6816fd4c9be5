"""How a family's tensors are called elsewhere, declared once; loading and saving both follow from it.

A rule pairs our names with theirs. Names are those of modules, so every suffix (`weight`, `bias`, `lora_A.weight`)
follows its module; `{i}` runs over layers and `{e}` over experts. Where the tensors differ in form, an operation that
knows its inverse stands between. Tensors go pair by pair: peak memory is the model plus the tensors of one pair.

    WeightMap(
        rule("embed.tokens", "transformer.wte"),
        rule(("blocks.{i}.attn.q_proj", ..., ...), "transformer.h.{i}.attn.c_attn", Chain(Transpose(), Fused(d, d, d))),
        i=config.num_hidden_layers,
    )
"""

import fnmatch
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from groundup.base.errors import CheckpointError

GetTensor = Callable[[str], Tensor]


class Operation(Protocol):
    """From their tensors to ours and back."""

    def load(self, tensors: list[Tensor]) -> list[Tensor]:
        """Theirs -> ours."""
        ...

    def save(self, tensors: list[Tensor]) -> list[Tensor]:
        """Ours -> theirs."""
        ...


class Same:
    """The tensors are equal."""

    def load(self, tensors: list[Tensor]) -> list[Tensor]:
        """Unchanged."""
        return tensors

    save = load


class Transpose:
    """Matrices are stored (in, out), as GPT-2's Conv1D does; vectors are left alone."""

    def load(self, tensors: list[Tensor]) -> list[Tensor]:
        """Turn every matrix."""
        return [tensor.mT if tensor.ndim == 2 else tensor for tensor in tensors]

    save = load


class Fused:
    """One tensor of theirs holds several of ours, one after another along a dimension: 0, or 1 where experts are
    stacked along the first.
    """

    def __init__(self, *sizes: int, dim: int = 0):
        self.sizes, self.dim = sizes, dim

    def load(self, tensors: list[Tensor]) -> list[Tensor]:
        """Split."""
        return list(tensors[0].split(self.sizes, dim=self.dim))

    def save(self, tensors: list[Tensor]) -> list[Tensor]:
        """Join."""
        return [torch.cat(tensors, dim=self.dim)]


class FusedHeads:
    """One tensor of theirs holds q, k and v group by group along dimension 0: the `queries` heads of a group, then the
    key head and the value head that they share. GPT-NeoX and BLOOM: a group for each head; Falcon 7B: one in all.

    Args:
        groups: key-value heads, K.
        queries: query heads in a group, H / K.
    """

    def __init__(self, groups: int, queries: int = 1):
        self.groups, self.queries = groups, queries

    def load(self, tensors: list[Tensor]) -> list[Tensor]:
        """((H + 2 K) d, ...) -> q (H d, ...), k and v (K d, ...)"""
        heads = tensors[0].unflatten(0, (self.groups, self.queries + 2, -1))  # (K, H/K + 2, d, ...)
        return [part.flatten(0, 2) for part in heads.split((self.queries, 1, 1), dim=1)]

    def save(self, tensors: list[Tensor]) -> list[Tensor]:
        """The inverse."""
        parts = zip(tensors, (self.queries, 1, 1), strict=True)
        heads = [tensor.unflatten(0, (self.groups, count, -1)) for tensor, count in parts]
        return [torch.cat(heads, dim=1).flatten(0, 2)]


class Stacked:
    """Several tensors of one shape (experts) are one of ours, side by side along a new first dimension."""

    def load(self, tensors: list[Tensor]) -> list[Tensor]:
        """Join."""
        return [torch.stack(tensors)]

    def save(self, tensors: list[Tensor]) -> list[Tensor]:
        """Take apart."""
        return list(tensors[0].unbind())


class WithinHeads:
    """One tensor of theirs holds several of ours head by head along dimension 0: in each head first the rows of the
    first, then those of the second.

    Args:
        heads: how many.
        sizes: rows of each tensor in a head.
    """

    def __init__(self, heads: int, *sizes: int):
        self.heads, self.sizes = heads, sizes

    def load(self, tensors: list[Tensor]) -> list[Tensor]:
        """Split."""
        return [part.flatten(0, 1) for part in tensors[0].unflatten(0, (self.heads, -1)).split(self.sizes, dim=1)]

    def save(self, tensors: list[Tensor]) -> list[Tensor]:
        """Join."""
        return [torch.cat([tensor.unflatten(0, (self.heads, -1)) for tensor in tensors], dim=1).flatten(0, 1)]


class Mapped:
    """Every tensor passes through a function that has an inverse."""

    def __init__(self, load: Callable[[Tensor], Tensor], save: Callable[[Tensor], Tensor]):
        self._load, self._save = load, save

    def load(self, tensors: list[Tensor]) -> list[Tensor]:
        """Apply the function."""
        return [self._load(tensor) for tensor in tensors]

    def save(self, tensors: list[Tensor]) -> list[Tensor]:
        """Apply the inverse."""
        return [self._save(tensor) for tensor in tensors]


class Chain:
    """Several operations, in the order of loading."""

    def __init__(self, *operations: Operation):
        self.operations = operations

    def load(self, tensors: list[Tensor]) -> list[Tensor]:
        """First to last."""
        for operation in self.operations:
            tensors = operation.load(tensors)
        return tensors

    def save(self, tensors: list[Tensor]) -> list[Tensor]:
        """Last to first."""
        for operation in reversed(self.operations):
            tensors = operation.save(tensors)
        return tensors


@dataclass(frozen=True)
class Rule:
    """Modules of ours, modules of theirs, and the operation between them."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    operation: Operation


def rule(ours: str | Iterable[str], theirs: str | Iterable[str], operation: Operation | None = None) -> Rule:
    """A Rule; single names need no tuple."""
    return Rule(_names(ours), _names(theirs), operation or Same())


def _names(names: str | Iterable[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


@dataclass(frozen=True)
class Pair:
    """Tensors that belong together: full names on both sides."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    operation: Operation


class WeightMap:
    """The rules of one model.

    Args:
        rules: see `rule`.
        prefix: a prefix of their names that some checkpoints leave out (`transformer.` of the bare GPT-2).
        ignore: patterns of names of theirs that hold nothing learned (`*.rotary_emb.inv_freq`).
        within: how the names begin in a checkpoint that holds this model as a part of a larger one -> as they begin by
            itself (`model.language_model.` -> `model.`).
        left_out: patterns of names of theirs that are learned and have no place here -> what they are.
        sizes: how far each `{letter}` runs.
    """

    def __init__(
        self,
        *rules: Rule,
        prefix: str = "",
        ignore: tuple[str, ...] = (),
        within: dict[str, str] | None = None,
        left_out: dict[str, str] | None = None,
        **sizes: int,
    ):
        self.prefix, self.ignore, self.within, self.left_out = prefix, ignore, within or {}, left_out or {}
        self._rules, self._sizes = rules, sizes
        self._by_their_module: dict[str, tuple[Rule, int]] = {}
        self._by_our_module: dict[str, tuple[Rule, int]] = {}
        for filled in _fill(rules, sizes):
            for side, index in ((filled.theirs, self._by_their_module), (filled.ours, self._by_our_module)):
                index.update({module: (filled, place) for place, module in enumerate(side)})

    def plus(self, *rules: Rule, ignore: tuple[str, ...] = ()) -> "WeightMap":
        """With more rules, and more to ignore: what a family has besides its ancestor. A later rule wins."""
        extras = {
            "prefix": self.prefix,
            "ignore": self.ignore + ignore,
            "within": self.within,
            "left_out": self.left_out,
        }
        return WeightMap(*self._rules, *rules, **extras, **self._sizes)  # type: ignore[arg-type]

    def notes(self, names: Iterable[str]) -> list[str]:
        """What of a checkpoint with these names is learned and has no place here, counted."""
        names = list(names)
        counts = {what: sum(fnmatch.fnmatchcase(n, pattern) for n in names) for pattern, what in self.left_out.items()}
        return [f"{what} ({count} tensors)" for what, count in counts.items() if count]

    def match_theirs(self, names: Iterable[str]) -> list[Pair]:
        """The pairs that a checkpoint with these names holds; a `CheckpointError` names what no rule knows."""
        present: dict[str, str] = {}
        for name in names:
            if not self._ignored(name) and present.setdefault(self._full(name), name) != name:
                raise CheckpointError(f"the checkpoint holds both {name} and {present[self._full(name)]}: one too many")
        return self._match(present, self._by_their_module, "theirs")

    def match_ours(self, names: Iterable[str]) -> list[Pair]:
        """The pairs that a model with these names makes."""
        return self._match({name: name for name in names}, self._by_our_module, "ours")

    def load(self, names: Iterable[str], get: GetTensor) -> Iterator[tuple[str, Tensor]]:
        """Their tensors under our names, one pair at a time; `get` fetches one tensor of theirs."""
        for pair in self.match_theirs(names):
            yield from zip(pair.ours, _load(pair, [get(name) for name in pair.theirs]), strict=True)

    def save(self, names: Iterable[str], get: GetTensor) -> Iterator[tuple[str, Tensor]]:
        """Our tensors under their names, one pair at a time; `get` fetches one tensor of ours."""
        for pair in self.match_ours(names):
            tensors = pair.operation.save([get(name) for name in pair.ours])
            yield from ((name, tensor.contiguous()) for name, tensor in zip(pair.theirs, tensors, strict=True))

    def rule_of_ours(self, module: str) -> Rule | None:
        """What a module of ours is elsewhere: the modules that belong together on both sides, by full names."""
        return _rule_of(module, self._by_our_module)

    def rule_of_theirs(self, module: str) -> Rule | None:
        """What a module of theirs is here, in the same form."""
        return _rule_of(self._full(module), self._by_their_module)

    def _match(self, present: dict[str, str], index: dict[str, tuple[Rule, int]], side: str) -> list[Pair]:
        pairs, unknown = {}, []
        for name in present:
            found = _longest_module(name, index)
            if found is None:
                unknown.append(present[name])
                continue
            rule, suffix = found
            pairs.setdefault((rule, suffix), None)
        if unknown:
            raise CheckpointError(f"no rule of this family knows {len(unknown)} tensors: {_some(unknown)}")
        return [self._pair(rule, suffix, present, side) for rule, suffix in pairs]

    def _pair(self, rule: Rule, suffix: str, present: dict[str, str], side: str) -> Pair:
        ours, theirs = ([name + suffix for name in names] for names in (rule.ours, rule.theirs))
        needed = theirs if side == "theirs" else ours
        missing = [name for name in needed if name not in present]
        if missing:
            raise CheckpointError(f"missing tensors: {_some(missing)}, which belong with {_some(needed)}")
        if side == "theirs":
            theirs = [present[name] for name in theirs]
        return Pair(tuple(ours), tuple(theirs), rule.operation)

    def _full(self, name: str) -> str:
        for start, usual in self.within.items():
            if name.startswith(start):
                return usual + name.removeprefix(start)
        if not self.prefix or name.startswith(self.prefix) or _longest_module(name, self._by_their_module):
            return name
        return self.prefix + name

    def _ignored(self, name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in (*self.ignore, *self.left_out))


def _load(pair: Pair, theirs: list[Tensor]) -> list[Tensor]:
    try:
        return pair.operation.load(theirs)
    except (RuntimeError, CheckpointError) as error:  # a shape that the operation cannot cut or turn
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in zip(pair.theirs, theirs, strict=True))
        raise CheckpointError(f"{shapes} does not give {_some(list(pair.ours))}: {error}") from None


def _fill(rules: Iterable[Rule], sizes: dict[str, int]) -> Iterator[Rule]:
    """Every rule, once for each value of its letters."""
    for each in rules:
        letters = [letter for letter in sizes if any(f"{{{letter}}}" in name for name in each.ours + each.theirs)]
        for values in itertools.product(*(range(sizes[letter]) for letter in letters)):
            at = dict(zip(letters, values, strict=True))
            ours, theirs = (tuple(name.format(**at) for name in names) for names in (each.ours, each.theirs))
            yield Rule(ours, theirs, each.operation)


def _longest_module(name: str, index: dict[str, tuple[Rule, int]]) -> tuple[Rule, str] | None:
    """The rule of the longest module name that `name` begins with, and the rest of `name`."""
    end = len(name)
    while end > 0:
        if name[:end] in index:
            return index[name[:end]][0], name[end:]
        end = name.rfind(".", 0, end)
    return None


def _rule_of(module: str, index: dict[str, tuple[Rule, int]]) -> Rule | None:
    found = _longest_module(module, index)
    if found is None:
        return None
    rule, suffix = found
    ours, theirs = (tuple(name + suffix for name in names) for names in (rule.ours, rule.theirs))
    return Rule(ours, theirs, rule.operation)


def _some(names: list[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
