"""Look at what flows inside a model, or change it, without touching its code.

    with observe(model, ["blocks.*", "blocks.*.attn.core"]) as seen:
        model(ids)
    seen["blocks.3"]                # (B, T, D), the residual stream after block 3
    seen.attention("blocks.3.attn") # (B, H, T, S), recomputed from its queries and keys
    seen.loads("blocks.3.mlp")      # (E,), how many tokens each expert got: of a mixture whose `.mlp.gate` is observed

    with observe(model, {"blocks.3.mlp": lambda output: output * 0}):
        model(ids)                  # without block 3's MLP

Nothing is paid when it is not in use: the hooks live inside the context alone.
"""

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from groundup.base.errors import UsageError
from groundup.layers.attention import AttentionCore
from groundup.layers.moe.routing import Routing

Edit = Callable[[Any], Any]


class Observation:
    """What was seen: a mapping from dotted module name to the output of the last call, and all calls under `calls`.

    Attributes:
        calls: name -> the outputs of all calls, in order.
    """

    def __init__(self, model: nn.Module, edits: Mapping[str, Edit | None], detach: bool = True):
        self._model, self._edits, self._detach = model, edits, detach
        self._handles: list[Any] = []
        self._cores: dict[str, list[tuple[Any, ...]]] = {}
        self.calls: dict[str, list[Any]] = {}

    def __enter__(self) -> Self:
        modules = dict(self._model.named_modules())
        wanted: dict[str, list[Edit]] = {}  # a module that several patterns name is hooked once, with all their edits
        for pattern, edit in self._edits.items():
            found = [name for name in modules if fnmatch.fnmatchcase(name, pattern)]
            if not found:
                raise UsageError(
                    f"no module matches {pattern!r}; names look like: {', '.join(list(modules)[1:9])}, ..."
                )
            for name in found:
                wanted.setdefault(name, []).extend([edit] if edit is not None else [])
        for name, edits in wanted.items():
            self._handles.append(modules[name].register_forward_hook(self._hook(name, modules[name], edits)))
        return self

    def __exit__(self, *exception: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Take the hooks out."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, name: str, module: nn.Module, edits: list[Edit]) -> Callable[..., Any]:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
            for edit in edits:
                output = edit(output)
            self.calls.setdefault(name, []).append(self._kept(output))
            if isinstance(module, AttentionCore):
                q, k, _, mask = inputs
                self._cores.setdefault(name, []).append((module, self._kept(q), self._kept(k), mask))
            return output if edits else None

        return hook

    def _kept(self, value: Any) -> Any:
        return value.detach() if self._detach and isinstance(value, Tensor | Routing) else value

    def __getitem__(self, name: str) -> Any:
        if name not in self.calls:
            raise KeyError(f"{name} was not observed or did not run; seen: {', '.join(self.calls) or 'nothing'}")
        return self.calls[name][-1]

    def __iter__(self) -> Iterator[str]:
        return iter(self.calls)

    def __len__(self) -> int:
        return len(self.calls)

    @property
    def names(self) -> list[str]:
        """The modules that ran."""
        return list(self.calls)

    def attention(self, name: str, call: int = -1) -> Tensor:
        """Attention weights (B, H, T, S) of an attention module or its core, which must be among those observed."""
        core = name if name in self._cores else name + ".core"
        if core not in self._cores:
            raise KeyError(f"{name} has no observed attention core: observe '{core}' as well")
        module, q, k, mask = self._cores[core][call]
        with torch.no_grad():
            return module.weights(q, k, mask)

    def loads(self, name: str, call: int = -1) -> Tensor:
        """How many tokens each expert of a mixture got, (E,), from its gate, which must be among those observed."""
        gate = name if name in self.calls else name + ".gate"
        routing = self.calls.get(gate, [None])[call]
        if not isinstance(routing, Routing):
            raise KeyError(f"{name} has no observed gate: observe '{gate}' as well")
        return routing.loads


def observe(
    model: nn.Module, patterns: str | Iterable[str] | Mapping[str, Edit | None], detach: bool = True
) -> Observation:
    """Record, or edit, the outputs of the modules whose dotted names match.

    Args:
        model: any module.
        patterns: names or patterns to record, or pattern -> function that takes an output and returns what replaces it
            (None: record only).
        detach: keep tensors without their gradient history.

    Returns:
        A context manager; what it yields holds what was seen. Observe `*.attn.core` for attention weights, `*.mlp.gate`
        for the loads of experts.
    """
    if isinstance(patterns, str):
        patterns = [patterns]
    edits = dict(patterns) if isinstance(patterns, Mapping) else dict.fromkeys(patterns)
    return Observation(model, edits, detach)
