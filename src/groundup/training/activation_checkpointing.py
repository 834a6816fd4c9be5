"""Activation checkpointing (Chen et al. 2016): less memory for one more forward pass, the same gradients.

Applied to a built model from outside: each block then keeps its input alone, and everything inside is computed again
when the backward pass reaches it, with the same dropout masks.
"""

import contextlib
import functools
from collections.abc import Iterator

from torch import nn
from torch.utils.checkpoint import checkpoint


@contextlib.contextmanager
def checkpointed(model: nn.Module, active: bool = True) -> Iterator[None]:
    """While this is open the children of `model.blocks` keep only their inputs."""
    blocks = list(model.blocks.children()) if active else []  # type: ignore[union-attr]
    for block in blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward
