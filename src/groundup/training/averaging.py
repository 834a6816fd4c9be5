"""Averages of weights: exponential over training, and plain over checkpoints."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from groundup.base.errors import CheckpointError, UsageError
from groundup.training.checkpoint import STATE, verify
from groundup.training.ema import EMAConfig


class EMA:
    """The moving average: ema <- d ema + (1 - d) w, in fp32, of tensors that training changes in place."""

    def __init__(self, weights: dict[str, Tensor], config: EMAConfig):
        self.config = config
        self.weights = {name: weight.detach() for name, weight in weights.items()}
        self.average = {name: weight.detach().float().clone() for name, weight in weights.items()}
        self.updates = 0

    def decay(self) -> float:
        """The decay d of the next update."""
        if not self.config.warmup:
            return self.config.decay
        return min(self.config.decay, (1 + self.updates) / (10 + self.updates))

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now: call it after each optimizer step."""
        decay = self.decay()
        for name, average in self.average.items():
            average.lerp_(self.weights[name].to(average.dtype), 1 - decay)
        self.updates += 1

    @contextlib.contextmanager
    @torch.no_grad()
    def swapped_in(self, parameters: Iterable[tuple[str, Tensor]]) -> Iterator[None]:
        """While active, the named parameters hold the average; their own values come back afterwards, exactly."""
        parameters = [(name, p.detach()) for name, p in parameters if name in self.average]
        kept = [(p, p.clone()) for _, p in parameters]
        try:
            for name, p in parameters:
                p.copy_(self.average[name])
            with torch.enable_grad():
                yield
        finally:
            for p, value in kept:
                p.copy_(value)

    def state_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: the average by name, and `updates`."""
        return {**self.average, "updates": torch.tensor(self.updates)}

    @torch.no_grad()
    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take back `state_tensors()`; `CheckpointError` if names differ."""
        differ = (self.average.keys() | {"updates"}) ^ tensors.keys()
        if differ:
            raise CheckpointError(f"the saved average has other tensors: {sorted(differ)[:3]}")
        for name, average in self.average.items():
            average.copy_(tensors[name])
        self.updates = int(tensors["updates"])


def average_checkpoints(folders: Sequence[str | Path]) -> dict[str, Tensor]:
    """The mean of several checkpoints' tensors (Vaswani et al. 2017 average the last 5 to 20), in the first's dtype.

    Each of `folders` is a .safetensors file, a model folder that holds one or more of them, or a checkpoint of a run
    (`checkpoints/step-000500`), of which the model alone counts and the hashes are checked. Sums in fp32; tensors of
    integers are taken from the first. `CheckpointError` if names or shapes differ.
    """
    if not folders:
        raise UsageError("no checkpoints to average: name at least one file or folder")
    first = _read(folders[0])
    sums = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in first.items()}
    for folder in folders[1:]:
        other = _read(folder)
        if {n: t.shape for n, t in other.items()} != {n: t.shape for n, t in first.items()}:
            raise CheckpointError(f"{folder} has other tensors than {folders[0]}: only equal models can be averaged")
        for name, tensor in other.items():
            if tensor.is_floating_point():
                sums[name] = sums[name] + tensor.float()
    return {
        name: (total / len(folders)).to(first[name].dtype) if total.is_floating_point() else total
        for name, total in sums.items()
    }


def _read(path: str | Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    if path.is_dir() and (path / STATE).is_file():  # optimizer and moving average lie beside the model
        verify(path)
        path = path / "model.safetensors"
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise CheckpointError(f"no .safetensors file at {path}")
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            tensors.update(load_file(file))
        except SafetensorError as error:
            raise CheckpointError(f"{file} is not a whole safetensors file: {error}") from None
    return tensors
