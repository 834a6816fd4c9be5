"""Model weights on disk: safetensors files, one or several ("shards") with an index, read and written tensor by tensor.

    model.safetensors                          one file, or
    model-00001-of-00003.safetensors, ...      shards, and
    model.safetensors.index.json               {"metadata": {...}, "weight_map": {tensor name: shard}}

Every header is checked before any tensor is read (`safetensors_header`). Pickled weights (.bin, .pt, .pth) are never
opened.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.base.errors import CheckpointError
from groundup.base.files import explain_write_errors, read_json, safe_join, sync_file, sync_folder, write_atomic
from groundup.base.safetensors_header import DTYPES, TensorMeta, read_header, write_header

if TYPE_CHECKING:
    from torch import Tensor

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
MAX_SHARD_BYTES = 5 * 10**9


class ShardReader:
    """The tensors of a checkpoint: a folder with `STEM.safetensors` or its shards, or one explicit .safetensors file.

    Opening reads and checks headers only. At most one shard is mapped at a time, so copying tensor by tensor in the
    order of `names()` needs the memory of the model plus one shard. Use it as a context manager, or call `close`.

    Raises:
        CheckpointError: nothing to read, missing or damaged files, an index that disagrees with its shards, pickled
        weights.
    """

    def __init__(self, path: str | Path, stem: str = "model"):
        self.path = Path(path)
        self._files: dict[str, Path] = {}
        self._metas: dict[str, TensorMeta] = {}
        for file, metas in find_shards(self.path, stem).items():
            self._files.update(dict.fromkeys(metas, file))
            self._metas.update(metas)
        self._open_file: Path | None = None
        self._handle: Any = None

    def names(self) -> list[str]:
        """All tensor names, shard by shard in the order of their bytes: the cheapest order to read them in."""
        return list(self._metas)

    def meta(self, name: str) -> TensorMeta:
        """Dtype (torch's name), shape and size in bytes of a tensor; reads no data."""
        return self._metas[self._known(name)]

    def get(self, name: str) -> "Tensor":
        """The tensor, on the CPU, as a view of the mapped file: copy what is to be kept or changed.

        A view keeps its whole shard mapped for as long as it lives.
        """
        file = self._files[self._known(name)]
        if file != self._open_file:
            self.close()
            self._handle, self._open_file = _open(file), file
        return self._handle.get_tensor(name)

    def tensors(self) -> Iterator[tuple[str, "Tensor"]]:
        """(name, tensor) pairs in the order of `names()`; each tensor is a view as in `get`."""
        for name in self._metas:
            yield name, self.get(name)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(meta.nbytes for meta in self._metas.values())

    @property
    def files(self) -> list[Path]:
        """The files that hold the tensors."""
        return list(dict.fromkeys(self._files.values()))

    def close(self) -> None:
        """Let go of the mapped shard; reading again maps it again."""
        if self._handle is not None:
            self._handle.__exit__(None, None, None)
        self._handle = self._open_file = None

    def _known(self, name: str) -> str:
        if name not in self._metas:
            raise CheckpointError(f"{self.path} holds no tensor {name!r}")
        return name

    def __contains__(self, name: object) -> bool:
        return name in self._metas

    def __len__(self) -> int:
        return len(self._metas)

    def __enter__(self) -> "ShardReader":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _open(file: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="pt", device="cpu").__enter__()
    except (SafetensorError, OSError) as error:  # it changed since its header was checked
        raise CheckpointError(f"{file}: {error}") from None


def find_shards(path: Path, stem: str = "model") -> dict[Path, dict[str, TensorMeta]]:
    """The files of a checkpoint, in order, each with its checked header. A single file wins over an index."""
    if path.is_file():
        _refuse_pickle(path)
        return {path: read_header(path)}
    if not path.is_dir():
        raise CheckpointError(f"no model folder or file at {path}")
    single, index = f"{stem}.safetensors", f"{stem}.safetensors.index.json"
    if os.path.lexists(path / single):
        file = safe_join(path, single, also=hub_blobs(path))
        return {file: read_header(file)}
    if os.path.lexists(path / index):
        return _indexed_shards(path, index)
    raise CheckpointError(_nothing_found(path, stem))


def _indexed_shards(folder: Path, index: str) -> dict[Path, dict[str, TensorMeta]]:
    where = folder / index
    weight_map = _weight_map(safe_join(folder, index, also=hub_blobs(folder)), where)
    wanted: dict[str, set[str]] = {}
    for tensor, shard in weight_map.items():
        wanted.setdefault(shard, set()).add(tensor)
    missing = [shard for shard in wanted if ".." not in shard and not os.path.lexists(folder / shard)]
    if missing:
        shown = ", ".join(sorted(missing)[:3]) + (", ..." if len(missing) > 3 else "")
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of the {len(wanted)} shards that its index names ({shown}): "
            "copy or download them again"
        )
    shards = {}
    for shard in sorted(wanted):
        file = safe_join(folder, shard, also=hub_blobs(folder))
        shards[file] = read_header(file)
        _same_tensors(wanted[shard], shards[file].keys(), folder / shard, where)
    return shards


def _weight_map(index: Path, where: Path) -> dict[str, str]:
    value = read_json(index)
    weight_map = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{where} has no `weight_map` of tensor names to shards")
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not shard.endswith(".safetensors"):
            raise CheckpointError(
                f"{where}: tensor {tensor!r} is mapped to {shard!r:.80}, which is no .safetensors file"
            )
    return weight_map


def _same_tensors(listed: set[str], found: Any, shard: Path, index: Path) -> None:
    if absent := sorted(listed - found):
        raise CheckpointError(
            f"{shard} lacks tensor {absent[0]!r}, which {index.name} places there ({len(absent)} in all)"
        )
    if unlisted := sorted(found - listed):
        raise CheckpointError(
            f"{shard} holds tensor {unlisted[0]!r}, which {index.name} does not place there ({len(unlisted)} in all)"
        )


def hub_blobs(folder: Path) -> Path | None:
    """Where the links of a hub cache folder (`models--*/snapshots/REVISION`) lead; None for other folders."""
    repository = folder.resolve().parent.parent
    is_snapshot = folder.resolve().parent.name == "snapshots" and repository.name.startswith("models--")
    return repository / "blobs" if is_snapshot else None


def _refuse_pickle(path: Path) -> None:
    if path.suffix in PICKLED:
        raise CheckpointError(f"{path} is a pickle. {_CONVERT}")


_CONVERT = (
    "Opening a pickle can run any program, so it is not read. Convert it once where that does no harm: "
    "transformers' `AutoModelForCausalLM.from_pretrained(OLD).save_pretrained(NEW)` writes safetensors; "
    "many models also offer them on the hub."
)


def _nothing_found(folder: Path, stem: str) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    if pickled := [name for name in names if name.endswith(PICKLED)]:
        return f"{folder} holds only pickled weights ({pickled[0]}). {_CONVERT}"
    if shards := [name for name in names if re.fullmatch(re.escape(stem) + r"-\d+-of-\d+\.safetensors", name)]:
        return (
            f"{folder} holds {len(shards)} shards but no {stem}.safetensors.index.json: saving or copying was cut short"
        )
    if other := [name for name in names if name.endswith(".safetensors")]:
        return f"{folder} holds no {stem}.safetensors; to read {other[0]} give the path of that file"
    return (
        f"{folder} holds no weights: {stem}.safetensors, or {stem}.safetensors.index.json and its shards, are expected"
    )


class ShardWriter:
    """Writes a checkpoint that transformers reads; `add` tensors one by one inside a `with` block.

    Tensors are held until their shard is full (`max_shard_bytes`), then written: the memory needed is one shard. They
    must not be changed before the block ends. Files get their final names when the block ends, the index last; on an
    exception nothing of this checkpoint remains. An older checkpoint of the same stem is replaced; a kill in that
    moment leaves a folder that the reader refuses, never a mixture (use `files.atomic_folder` around it to keep the
    old one even then).

    Tied tensors: pass each once, under one name. A tensor that begins at the same address and has as many elements as
    one passed before is refused.

    Raises:
        CheckpointError: a repeated name, a tied tensor, a tensor without plain data (meta, sparse), an unknown dtype.
        GroundupError: the disk is full or may not be written.
    """

    def __init__(self, folder: str | Path, max_shard_bytes: int = MAX_SHARD_BYTES, stem: str = "model"):
        self.folder = Path(folder)
        self.max_shard_bytes = max_shard_bytes
        self.stem = stem
        self._pending: dict[str, Tensor] = {}
        self._pending_bytes = 0
        self._shards: list[list[str]] = []
        self._names: set[str] = set()
        self._seen: dict[tuple[Any, int, int], tuple[str, Any]] = {}
        self._total_parameters = self._total_bytes = 0

    def add(self, name: str, tensor: "Tensor") -> None:
        """Add a tensor (any device, any strides) under its final name."""
        self._check(name, tensor)
        nbytes = tensor.numel() * tensor.element_size()
        if self._pending and self._pending_bytes + nbytes > self.max_shard_bytes:
            self._flush()
        self._names.add(name)
        self._pending[name] = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        self._pending_bytes += nbytes
        self._total_bytes += nbytes
        self._total_parameters += tensor.numel()

    def _check(self, name: str, tensor: "Tensor") -> None:
        import torch
        from torch.multiprocessing.reductions import StorageWeakRef

        if name in self._names or name == "__metadata__":
            raise CheckpointError(f"the tensor name {name!r} was used twice or is reserved")
        if tensor.device.type == "meta" or tensor.layout != torch.strided or _safetensors_dtype(tensor) is None:
            raise CheckpointError(
                f"tensor {name!r} ({tensor.dtype}, {tensor.layout}, {tensor.device}) cannot be stored"
            )
        if tensor.numel() == 0:
            return
        key = (tensor.device, tensor.data_ptr(), tensor.numel())
        before = self._seen.get(key)
        if before is not None and not before[1].expired():  # an address is used again once its owner is gone
            raise CheckpointError(f"tensor {name!r} is tied to {before[0]!r}: pass it once")
        self._seen[key] = (name, StorageWeakRef(tensor.untyped_storage()))

    def _flush(self) -> None:
        """Write the pending tensors as a shard under a temporary name."""
        # The library's order: widest dtype first, so that every tensor is aligned; then by name.
        rank = {dtype: place for place, dtype in enumerate(DTYPES)}
        dtypes = {name: _safetensors_dtype(tensor) or "" for name, tensor in self._pending.items()}
        order = sorted(self._pending, key=lambda name: (-rank[dtypes[name]], name.encode("utf-8")))
        shapes = {name: (dtypes[name], tuple(self._pending[name].shape), self._pending[name].nbytes) for name in order}
        path = self._temporary(len(self._shards))
        self._shards.append(order)
        with explain_write_errors(self.folder / f"{self.stem}.safetensors"):
            with open(path, "wb") as file:
                write_header(file, shapes)
                for name in order:
                    _write_bytes(file, self._pending[name])
            sync_file(path)
        self._pending, self._pending_bytes = {}, 0

    def _temporary(self, shard: int) -> Path:
        return self.folder / f".{self.stem}-{shard + 1:05}.safetensors.partial"

    def _finish(self) -> None:
        """Give the shards their final names; at no moment do an old index and new shards stand together."""
        count = len(self._shards)
        single, index = self.folder / f"{self.stem}.safetensors", self.folder / f"{self.stem}.safetensors.index.json"
        names = (
            [single.name] if count == 1 else [f"{self.stem}-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
        )
        stale = [path for path in self._old_shards() if path.name not in names]
        if count > 1:
            index.unlink(missing_ok=True)
            single.unlink(missing_ok=True)
        for i, name in enumerate(names):
            os.replace(self._temporary(i), self.folder / name)
        sync_folder(self.folder)
        if count > 1:
            weight_map = {tensor: names[i] for i, tensors in enumerate(self._shards) for tensor in tensors}
            metadata = {"total_parameters": self._total_parameters, "total_size": self._total_bytes}
            content = {"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))}
            write_atomic(index, json.dumps(content, indent=2) + "\n")
        else:
            index.unlink(missing_ok=True)
        for path in stale:
            path.unlink(missing_ok=True)

    def _old_shards(self) -> list[Path]:
        pattern = re.compile(re.escape(self.stem) + r"-\d{5}-of-\d{5}\.safetensors")
        return [path for path in self.folder.iterdir() if pattern.fullmatch(path.name)]

    def _remove_temporaries(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            for path in self.folder.glob(f".{self.stem}-*.safetensors.partial"):
                path.unlink(missing_ok=True)

    def __enter__(self) -> "ShardWriter":
        with explain_write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._remove_temporaries()  # what a killed writer left
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            if kind is None:
                if self._pending or not self._shards:
                    self._flush()
                with explain_write_errors(self.folder):
                    self._finish()
        finally:
            self._remove_temporaries()


def _safetensors_dtype(tensor: "Tensor") -> str | None:
    wanted = str(tensor.dtype).removeprefix("torch.")
    return next((name for name, (ours, _) in DTYPES.items() if ours == wanted), None)


def _write_bytes(file: Any, tensor: "Tensor") -> None:
    """Write a contiguous CPU tensor's bytes without a copy in memory (torch's machines are little-endian)."""
    import torch

    if tensor.numel():
        file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
