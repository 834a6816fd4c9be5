"""Checkpoints that are whole or not there.

    checkpoints/step-000040/
        model.safetensors  optimizer.safetensors  ema.safetensors    tensors by name
        state.json         step, loader position, random generators, callbacks, ...
        manifest.json      the size and SHA-256 of each of these
        COMMITTED          written last: the SHA-256 of the manifest

All is written into a hidden temporary folder, flushed to the disk, and renamed; the marker comes last. A folder without
marker does not count, so a kill at any moment leaves the last good checkpoint as the newest one. Loading checks every
hash. Nothing is pickled.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from groundup.adapters.attach import adapters_of
from groundup.base.errors import CheckpointError, GroundupError
from groundup.base.files import atomic_folder, read_json, sha256, write_atomic

MARKER = "COMMITTED"
MANIFEST = "manifest.json"
STATE = "state.json"
_NAME = re.compile(r"step-(\d+)$")

Tensors = Mapping[str, Mapping[str, Tensor]]
"""File stem (model, optimizer, ema) -> name -> tensor."""


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds."""

    path: Path
    state: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]

    @property
    def step(self) -> int:
        """Updates made so far."""
        return self.state["step"]


class Checkpoints:
    """The checkpoints of one run: `folder`/step-000040, ...

    Args:
        folder: where they lie.
        keep: how many of the newest to keep (at least one); the best one is kept besides.
    """

    def __init__(self, folder: str | Path, keep: int = 2):
        self.folder = Path(folder)
        self.keep = max(1, keep)

    def path(self, step: int) -> Path:
        """The folder of one step."""
        return self.folder / f"step-{step:06d}"

    def complete(self) -> list[Path]:
        """The folders that have their marker, oldest first."""
        found = [(int(match[1]), path) for path in self.folder.glob("step-*") if (match := _NAME.match(path.name))]
        return [path for _, path in sorted(found) if (path / MARKER).is_file()]

    def latest(self) -> Path | None:
        """The newest complete checkpoint."""
        return next(reversed(self.complete()), None)

    def save(self, tensors: Tensors, state: dict[str, Any], best_step: int | None = None) -> Path:
        """Write a checkpoint of step `state["step"]`, then remove those that are no longer kept.

        Raises:
            GroundupError: it could not be written (disk full, read-only, ...); all older ones are untouched.
        """
        path = self.path(state["step"])
        with atomic_folder(path, replace=True) as temporary:
            for stem, named in tensors.items():
                _write_tensors(temporary / f"{stem}.safetensors", named, path)
            (temporary / STATE).write_text(json.dumps(state, allow_nan=False), encoding="utf-8")
            manifest = _manifest(temporary)
            (temporary / MANIFEST).write_text(manifest, encoding="utf-8")
        write_atomic(path / MARKER, hashlib.sha256(manifest.encode()).hexdigest() + "\n")
        self._prune(best_step)
        return path

    def _prune(self, best_step: int | None) -> None:
        for path in self.complete()[: -self.keep]:
            if best_step is None or path != self.path(best_step):
                (path / MARKER).unlink()  # first, so that a half-removed folder never counts
                shutil.rmtree(path)

    def load(self, path: str | Path | None = None, fall_back: bool = False) -> Saved:
        """Read and check a checkpoint; by default the newest complete one.

        Args:
            path: one checkpoint's folder.
            fall_back: when it is damaged, try the next older one instead of raising.

        Raises:
            CheckpointError: there is none, or it is damaged; the message names the file.
        """
        if path is not None:
            return load(path)
        candidates = self.complete()[::-1]
        if not candidates:
            raise CheckpointError(f"{self.folder} holds no complete checkpoint")
        for candidate in candidates[:-1] if fall_back else []:
            try:
                return load(candidate)
            except CheckpointError:
                continue
        return load(candidates[-1] if fall_back else candidates[0])


def load(path: str | Path) -> Saved:
    """Read one checkpoint after checking all its files against their hashes; tensors are on the CPU."""
    path = Path(path)
    names = verify(path)
    tensors = {}
    for name in names:
        if name.endswith(".safetensors"):
            tensors[name.removesuffix(".safetensors")] = load_file(path / name)
    return Saved(path, read_json(path / STATE), tensors)


def verify(path: Path) -> list[str]:
    """The names of a checkpoint's files; `CheckpointError` naming the first that is missing, cut short or altered."""
    marker, manifest_path = path / MARKER, path / MANIFEST
    if not marker.is_file():
        raise CheckpointError(f"{path} is not a complete checkpoint: {MARKER} is missing")
    if not manifest_path.is_file():
        raise CheckpointError(f"{manifest_path} is missing; use an older checkpoint")
    if sha256(manifest_path) != marker.read_text(encoding="utf-8", errors="replace").strip():
        raise CheckpointError(f"{manifest_path} was altered after it was written; use an older checkpoint")
    files = read_json(manifest_path)["files"]
    for name, expected in files.items():
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing; use an older checkpoint")
        size = file.stat().st_size
        if size != expected["size"]:
            raise CheckpointError(f"{file} has {size:,} bytes, not {expected['size']:,}; use an older checkpoint")
        if sha256(file) != expected["sha256"]:
            raise CheckpointError(f"{file} does not have the hash it was written with; use an older checkpoint")
    return list(files)


def _manifest(folder: Path) -> str:
    files = {path.name: {"size": path.stat().st_size, "sha256": sha256(path)} for path in sorted(folder.iterdir())}
    return json.dumps({"format": 1, "files": files}, indent=1)


def _write_tensors(path: Path, named: Mapping[str, Tensor], target: Path) -> None:
    try:
        save_file({name: tensor.detach().contiguous().cpu() for name, tensor in named.items()}, path)
    except SafetensorError as error:  # the writer wraps the system's error in its own
        raise GroundupError(
            f"cannot write {target}: {error}. Nothing was left under that name. Make room, or choose another folder."
        ) from error


# -- what goes in -----------------------------------------------------------------------------------------------------


def model_tensors(model: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name; a tensor with two names (tied) appears under the first."""
    seen: set[int] = set()
    named: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor) and id(tensor) not in seen:
            seen.add(id(tensor))
            named[name] = tensor.detach()
    return named


def kept_tensors(model: torch.nn.Module) -> dict[str, Tensor]:
    """What a checkpoint keeps of a model: `model_tensors`, or those of its adapters, whose base does not change."""
    adapters = adapters_of(model)
    if not adapters.configs:
        return model_tensors(model)
    return {name: tensor.detach() for adapter in adapters.configs for name, tensor in adapters.tensors(adapter).items()}


@torch.no_grad()
def load_model_tensors(model: torch.nn.Module, saved: Mapping[str, Tensor], where: str | Path) -> None:
    """Copy saved tensors into the model; every name, shape and dtype must agree.

    Raises:
        CheckpointError: with the names that are missing, too many, or of another shape; the model is unchanged.
    """
    own = kept_tensors(model)
    problems = [f"{name} is missing" for name in own.keys() - saved.keys()]
    problems += [f"{name} is not in the model" for name in saved.keys() - own.keys()]
    for name in own.keys() & saved.keys():
        if own[name].shape != saved[name].shape:
            problems.append(f"{name} is {tuple(saved[name].shape)}, the model has {tuple(own[name].shape)}")
        elif own[name].dtype != saved[name].dtype:
            problems.append(f"{name} is {saved[name].dtype}, the model has {own[name].dtype}")
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise CheckpointError(f"{where} does not fit this model: {'; '.join(sorted(problems)[:5])}{more}")
    for name, tensor in own.items():
        tensor.copy_(saved[name])


def differences(saved: Any, present: Any, prefix: str = "") -> list[str]:
    """Where two nested dicts differ: 'hidden_size: 64 in the checkpoint, 128 now'."""
    if isinstance(saved, dict) and isinstance(present, dict):
        found: list[str] = []
        for key in sorted(saved.keys() | present.keys(), key=str):
            found += differences(saved.get(key), present.get(key), f"{prefix}.{key}" if prefix else str(key))
        return found
    return [] if saved == present else [f"{prefix}: {saved!r} in the checkpoint, {present!r} now"]
