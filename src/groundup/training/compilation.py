"""torch.compile where it pays: each block on its own.

The blocks of a model run the same code, so one compilation serves all of them: seconds where a whole model takes
minutes, and the same speed within noise. The compiled form is used for training steps alone: evaluation and sampling,
whose shapes change all the time, run as before.
"""

import contextlib
import functools
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from groundup.base.console import warn


class CompiledBlocks:
    """Calls the model with its blocks compiled: same arguments, same result to rounding."""

    def __init__(self, model: nn.Module):
        self.model = model
        blocks = getattr(model, "blocks", None)
        parts = list(blocks.children()) if isinstance(blocks, nn.Module) else [model]
        self._calls = [(part, torch.compile(part._call_impl)) for part in parts]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._compiled():
            return self.model(*args, **kwargs)

    @contextlib.contextmanager
    def _compiled(self) -> Iterator[None]:
        for part, call in self._calls:
            part._compiled_call_impl = call  # what nn.Module.compile() sets
        try:
            yield
        finally:
            for part, _ in self._calls:
                part._compiled_call_impl = None


def compiled(model: nn.Module, active: bool) -> Callable[..., Any]:
    """The model with compiled blocks; the model itself where that is not asked for, or cannot be done, or where a block
    says with `compiles = False` that it is better left as it is.
    """
    blocks = getattr(model, "blocks", None)
    parts = blocks.children() if isinstance(blocks, nn.Module) else ()
    wanted = active and all(getattr(part, "compiles", True) for part in parts)
    return CompiledBlocks(model) if wanted and can_compile() else model


@functools.cache
def can_compile() -> bool:
    """Whether torch.compile works here, found out by compiling a sum; one line says why it does not."""
    if torch.cuda.is_available():
        return True
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++", "cl")):
        warn("no C++ compiler was found: training runs uncompiled")
        return False
    try:
        torch.compile(_sum)(torch.zeros(4))
    except Exception as error:  # the kinds that a missing header or a broken compiler raises are many
        warn(f"torch.compile does not work here, training runs uncompiled: {str(error).strip().splitlines()[0]:.200}")
        return False
    return True


def _sum(x: Tensor) -> Tensor:
    return x + x.sin()
