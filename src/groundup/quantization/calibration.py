"""What flows into the linear layers of a model on some texts, seen block by block.

The hidden states of all texts are kept in front of one block at a time: memory is that of one block's inputs and
outputs, whatever the depth.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from groundup.base.console import progress
from groundup.base.errors import UsageError

ROWS = 8
"""Rows of ids that go through a block at once."""


def token_rows(texts: Iterable[str], tokenizer: Any, length: int = 512, count: int = 128) -> Tensor:
    """The ids of texts, one text after another, cut into rows. (count, length) int64, fewer rows of fewer texts

    Args:
        texts: documents: lines of a file, or a built-in corpus.
        tokenizer: has `encode(text) -> ids`.
        length: ids of a row.
        count: rows at most; no more texts are read than these need.

    Raises:
        UsageError: not one whole row.
    """
    ids: list[int] = []
    for text in texts:
        ids += list(tokenizer.encode(text))
        if len(ids) >= length * count:
            break
    rows = min(len(ids) // length, count)
    if not rows:
        raise UsageError(f"the calibration texts have {len(ids)} tokens, and a row needs {length}: give more, or less")
    return torch.tensor(ids[: rows * length]).view(rows, length)


def as_batches(ids: Tensor | Iterable[Tensor]) -> list[Tensor]:
    """Calibration ids as batches: (N, T) in parts of a few rows, or batches (B, T) as they are given."""
    batches = list(ids.split(ROWS)) if isinstance(ids, Tensor) else list(ids)
    if not batches or any(batch.ndim != 2 or batch.is_floating_point() or not batch.numel() for batch in batches):
        raise UsageError("calibration needs ids: integers (N, T), or a list of batches of them")
    return batches


class _FirstBlock(Exception):
    """Ends a forward call at the first block."""


class BlockByBlock:
    """Iterates over (name, block) of a model; `run` gives the block's outputs for the inputs that reach it.

    What a block gives is computed when the iteration goes on, so later blocks see what was done to the earlier ones.

    Args:
        model: its blocks are `model.blocks` and take (x, context).
        batches: ids (B, T) each.
    """

    def __init__(self, model: Any, batches: list[Tensor]):
        if not len(getattr(model, "blocks", ())):
            raise UsageError(f"{type(model).__name__} has no blocks to calibrate")
        self.model = model
        self.block: nn.Module = next(iter(model.blocks.values()))
        with torch.no_grad():
            self.calls = [self._first_call(batch.to(model.device)) for batch in batches]

    def _first_call(self, batch: Tensor) -> tuple[Tensor, Any]:
        seen: list[tuple[Tensor, Any]] = []

        def stop(module: nn.Module, args: tuple[Any, ...]) -> None:
            seen.append((args[0], args[1]))
            raise _FirstBlock

        handle = self.block.register_forward_pre_hook(stop)
        try:
            self.model(batch)
        except _FirstBlock:
            pass
        finally:
            handle.remove()
        return seen[0]

    def __iter__(self) -> Iterator[tuple[str, nn.Module]]:
        for name, block in progress(list(self.model.blocks.items()), label="calibrating", unit="block"):
            self.block = block
            yield f"blocks.{name}", block
            for i, (x, context) in enumerate(self.calls):
                self.calls[i] = (self.run_one(x, context), context)

    @torch.no_grad()
    def run_one(self, x: Tensor, context: Any) -> Tensor:
        """The block at hand on one batch, in evaluation mode."""
        training = [module for module in self.block.modules() if module.training]
        self.block.eval()
        try:
            return self.block(x, context)
        finally:
            for module in training:
                module.training = True

    def run(self, batches: int | None = None) -> list[Tensor]:
        """What the block at hand gives for the first so many batches; for all when None."""
        return [self.run_one(x, context) for x, context in self.calls[:batches]]


@dataclass
class Inputs:
    """What flowed into a linear layer, over all tokens.

    Attributes:
        gram: (in, in) float32, sum of x x^T.
        total: (in,) float32, sum of |x|; largest: (in,) float32, max |x|.
        tokens: how many.
    """

    gram: Tensor
    total: Tensor
    largest: Tensor
    tokens: int = 0

    @classmethod
    def empty(cls, width: int, device: torch.device) -> "Inputs":
        """Before the first token."""
        gram = torch.zeros(width, width, device=device)
        return cls(gram, gram.new_zeros(width), gram.new_zeros(width))

    def add(self, x: Tensor) -> None:
        """X (..., in)"""
        x = x.detach().flatten(0, -2).float()
        if not len(x):
            return
        self.gram.addmm_(x.T, x)
        self.total += x.abs().sum(0)
        self.largest = torch.maximum(self.largest, x.abs().amax(0))
        self.tokens += len(x)

    @property
    def mean(self) -> Tensor:
        """Mean |x| of each input, (in,)."""
        return self.total / max(self.tokens, 1)


def gather(layers: dict[str, nn.Module], walk: BlockByBlock) -> dict[str, Inputs]:
    """What flows into layers of the block at hand, on all batches; a layer that nothing reaches is left out."""
    found: dict[str, Inputs] = {}

    def look(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if name not in found:
                found[name] = Inputs.empty(args[0].shape[-1], args[0].device)
            found[name].add(args[0])

        return hook

    handles = [layer.register_forward_pre_hook(look(name)) for name, layer in layers.items()]
    try:
        walk.run()
    finally:
        for handle in handles:
            handle.remove()
    return found


def sharing(layers: dict[str, nn.Module], walk: BlockByBlock) -> list[list[str]]:
    """The names of layers of the block at hand in the order of their calls; those that read one tensor together."""
    read: dict[str, Tensor] = {}

    def look(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            read.setdefault(name, args[0])

        return hook

    handles = [layer.register_forward_pre_hook(look(name)) for name, layer in layers.items()]
    try:
        walk.run(1)
    finally:
        for handle in handles:
            handle.remove()
    together: dict[int, list[str]] = {}
    for name, x in read.items():
        together.setdefault(id(x), []).append(name)
    return list(together.values())


def loss_on(model: Any, rows: Any, batch: int = 8) -> float:
    """Mean loss of the next token over rows of ids (N, T), nats."""
    import torch
    from torch.nn.functional import cross_entropy

    total, count = 0.0, 0
    with torch.inference_mode():
        for part in rows.split(batch):
            logits = model(part[:, :-1])
            total += float(cross_entropy(logits.flatten(0, 1).float(), part[:, 1:].flatten(), reduction="sum"))
            count += part[:, 1:].numel()
    return total / count
