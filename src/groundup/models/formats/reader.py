"""What every reader of weights offers: the interface of `base.shards.ShardReader`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, Self

import torch
from torch import Tensor

from groundup.base.errors import CheckpointError
from groundup.base.safetensors_header import TensorMeta


class Weights(Protocol):
    """The tensors of a checkpoint by name. Opening reads what describes them; `get` reads one."""

    @property
    def path(self) -> Path:
        """The file or folder."""
        ...

    @property
    def files(self) -> list[Path]:
        """The files that hold the tensors."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        ...

    def names(self) -> list[str]:
        """All names, in the cheapest order to read them."""
        ...

    def meta(self, name: str) -> TensorMeta:
        """Dtype, shape and bytes; reads no data."""
        ...

    def get(self, name: str) -> Tensor:
        """The tensor on the CPU, a view of the mapped file where that is possible: copy what is to be changed."""
        ...

    def close(self) -> None:
        """Let go of what is mapped."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


class Reader:
    """What the readers here share; a subclass fills `metas` and defines `get`."""

    def __init__(self, path: Path):
        self.path = path
        self.metas: dict[str, TensorMeta] = {}

    def names(self) -> list[str]:
        """All names, in the order of their bytes."""
        return list(self.metas)

    def meta(self, name: str) -> TensorMeta:
        """Dtype (torch's name), shape and size in bytes of a tensor; reads no data."""
        return self.metas[self._known(name)]

    def get(self, name: str) -> Tensor:
        """The tensor, on the CPU; copy what is to be kept or changed."""
        raise NotImplementedError

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) pairs in the order of `names()`."""
        for name in self.metas:
            yield name, self.get(name)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(meta.nbytes for meta in self.metas.values())

    @property
    def files(self) -> list[Path]:
        """The files that hold the tensors."""
        return [self.path]

    def close(self) -> None:
        """Let go of what is mapped; reading again maps it again."""

    def _known(self, name: str) -> str:
        if name not in self.metas:
            raise CheckpointError(f"{self.path} holds no tensor {name!r}")
        return name

    def __contains__(self, name: object) -> bool:
        return name in self.metas

    def __len__(self) -> int:
        return len(self.metas)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def meta_tensor(meta: TensorMeta) -> Tensor:
    """A tensor of that shape and dtype without data."""
    return torch.empty(meta.shape, dtype=getattr(torch, meta.dtype), device="meta")
