"""Tensors of any readable form, written under the names they have: a file of torch.save, or safetensors.

For families that cannot be built here, and for tools that read only one of the two forms. Configs and tokenizers
are not touched; `export hf` makes complete folders.
"""

from pathlib import Path

from torch import Tensor

from groundup.base.errors import UsageError
from groundup.base.files import atomic_file
from groundup.base.shards import MAX_SHARD_BYTES, ShardWriter
from groundup.models.formats.reader import Weights

TORCH_ENDINGS = (".pth", ".pt", ".bin")


def write_weights(weights: Weights, target: str | Path, max_shard_bytes: int = MAX_SHARD_BYTES) -> Path:
    """Write every tensor to `target`: one file where it ends in .pth, .pt or .bin, otherwise a folder of safetensors.

    A folder needs the memory of one shard. `torch.save` writes all at once: its file needs the memory of those tensors
    that are views of a larger storage; the others stay mapped.

    Raises:
        UsageError: something is at `target`.
    """
    target = Path(target)
    if target.exists():
        raise UsageError(f"{target} exists: name a new file or folder")
    if target.suffix in TORCH_ENDINGS:
        _write_torch(weights, target)
        return target
    with ShardWriter(target, max_shard_bytes) as writer:
        for name in weights.names():
            writer.add(name, weights.get(name).clone())  # tied ones are two tensors here, as they have two names
    return target


def _write_torch(weights: Weights, target: Path) -> None:
    import torch

    with atomic_file(target) as file:
        torch.save({name: _alone(weights.get(name)) for name in weights.names()}, file)


def _alone(tensor: Tensor) -> Tensor:
    """The tensor with a storage of its own size: torch.save writes whole storages, and two names may share one."""
    whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if whole else tensor.contiguous().clone()
