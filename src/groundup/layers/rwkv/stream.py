"""The text as a stream: which token stands before which, for layers that read from left to right and carry a state.

With a state every row is one document; padding passes by and leaves no trace, wherever it stands. Without one, rows may
hold several documents (packing), and each begins with nothing before it.
"""

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.amp.autocast_mode import is_autocast_available

from groundup.layers.context import Context

if TYPE_CHECKING:
    from groundup.state import RecurrentState

NEVER = -1e30
"""A logarithm of nothing that can be added to others and stays finite in float32."""


@dataclass(eq=False)
class Stream:
    """The order of one call's tokens.

    Attributes:
        starts: (B, T) bool, the first tokens of their documents; None where only the row's own beginning is one.
        real: (B, T) bool, False for padding that must leave no trace; None where there is none.
    """

    starts: Tensor | None = None
    real: Tensor | None = None
    _last: Tensor | None = None  # (B, T) int64: the number, from 1, of the last real token so far; 0 for none

    @classmethod
    def of(cls, context: Context) -> Self:
        """The stream of a call, made once for all layers."""
        if "stream" not in context.shared:
            context.shared["stream"] = cls._make(context)
        return context.shared["stream"]

    @classmethod
    def _make(cls, context: Context) -> Self:
        documents = context.documents
        if documents is None:
            return cls()
        if context.state is None:
            return cls(starts=F.pad(documents[:, 1:] != documents[:, :-1], (1, 0)))
        real = documents != 0
        numbers = torch.arange(1, documents.shape[1] + 1, device=documents.device)
        return cls(real=real, _last=torch.where(real, numbers, 0).cummax(1).values)

    def shift(self, x: Tensor, memory: "RecurrentState | None") -> Tensor:
        """The token before each one, zeros before the first; the last one is remembered. (B, T, D) -> (B, T, D)"""
        if memory is None:
            before = F.pad(x, (0, 0, 1, -1))
            return before if self.starts is None else before.masked_fill(self.starts[..., None], 0)
        carried = memory.tensors.get("shift")
        carried = x.new_zeros(x[:, 0].shape) if carried is None else carried.to(x.dtype)
        if self._last is None and x.shape[1] == 1:
            memory.tensors["shift"] = x[:, 0].detach()
            return carried[:, None]
        line = torch.cat((carried[:, None], x), dim=1)  # (B, 1 + T, D)
        if self._last is None:
            memory.tensors["shift"] = line[:, -1].detach()
            return line[:, :-1]
        memory.tensors["shift"] = _pick(line, self._last[:, -1:])[:, 0].detach()
        return _pick(line, F.pad(self._last[:, :-1], (1, 0)))


def _pick(line: Tensor, index: Tensor) -> Tensor:
    return line.gather(1, index[..., None].expand(-1, -1, line.shape[-1]))


def memory_of(module: Any, context: Context) -> "RecurrentState | None":
    """What a module remembers between calls; None in a call without a state."""
    return None if context.state is None else context.state.layers[module.path]


def in_float32(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """While this is open autocast does not round matrix products: recurrences add up what is lost."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if is_autocast_available(kind) else contextlib.nullcontext()
