"""Hugging Face folders from before safetensors: pytorch_model.bin, or shards with pytorch_model.bin.index.json."""

import os
from pathlib import Path

from torch import Tensor

from groundup.base.errors import CheckpointError
from groundup.base.files import read_json, safe_join
from groundup.base.shards import hub_blobs
from groundup.models.formats.reader import Reader
from groundup.models.formats.torch_file import TorchFile

SINGLE, INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"


class TorchShards(Reader):
    """The tensors of such a folder; one shard is mapped at a time.

    Raises:
        CheckpointError: missing or damaged shards, names that leave the folder, an index that disagrees.
    """

    def __init__(self, folder: str | Path):
        super().__init__(Path(folder))
        self._parts = {part.path: part for part in map(TorchFile, shard_files(self.path))}
        self._place: dict[str, TorchFile] = {}
        for part in self._parts.values():
            if repeated := sorted(self.metas.keys() & part.metas.keys()):
                raise CheckpointError(f"{part.path}: the tensor {repeated[0]!r} is also in another shard")
            self.metas.update(part.metas)
            self._place.update(dict.fromkeys(part.metas, part))
        self._mapped: TorchFile | None = None
        if (self.path / INDEX).exists() and not (self.path / SINGLE).exists():
            self._check_index()

    def get(self, name: str) -> Tensor:
        """The tensor, on the CPU, as a view of its mapped shard: copy what is to be kept or changed."""
        part = self._place[self._known(name)]
        if self._mapped is not part:
            self.close()
            self._mapped = part
        return part.get(name)

    @property
    def files(self) -> list[Path]:
        """The shards."""
        return list(self._parts)

    def close(self) -> None:
        """Let go of the mapped shard."""
        if self._mapped is not None:
            self._mapped.close()
            self._mapped = None

    def _check_index(self) -> None:
        listed = weight_map(self.path)
        for name, shard in listed.items():
            part = self._place.get(name)
            if part is None or part.path != safe_join(self.path, shard, also=hub_blobs(self.path)):
                raise CheckpointError(f"{self.path / shard} lacks tensor {name!r}, which {INDEX} places there")
        if extra := sorted(self.metas.keys() - listed.keys()):
            raise CheckpointError(
                f"{self._place[extra[0]].path} holds tensor {extra[0]!r}, which {INDEX} does not list"
            )


def shard_files(folder: Path) -> list[Path]:
    """The files of the checkpoint; a single one wins over an index."""
    also = hub_blobs(folder)
    if os.path.lexists(folder / SINGLE):
        return [safe_join(folder, SINGLE, also=also)]
    return [safe_join(folder, shard, also=also) for shard in sorted(set(weight_map(folder).values()))]


def weight_map(folder: Path) -> dict[str, str]:
    """The index: tensor name -> shard."""
    value = read_json(safe_join(folder, INDEX, also=hub_blobs(folder)))
    found = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(found, dict) or not found or not all(isinstance(shard, str) for shard in found.values()):
        raise CheckpointError(f"{folder / INDEX} has no `weight_map` of tensor names to shards")
    return found
