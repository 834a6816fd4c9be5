"""Model folders: from a path or a name to a folder on this machine, its config, and writing one.

A folder is what transformers writes and reads: config.json, generation_config.json, weights (`shards`), tokenizer
files.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from groundup.base.console import warn
from groundup.base.errors import CheckpointError, did_you_mean
from groundup.base.files import read_json, safe_join, write_atomic
from groundup.base.hf_config import INFINITY, both_spellings, check_sizes, normalise_config, without_code_keys
from groundup.base.hub import HUB_PREFIX, download, is_hub_name
from groundup.base.shards import hub_blobs

__all__ = [
    "both_spellings",
    "builtin_folders",
    "check_sizes",
    "find_folder",
    "normalise_config",
    "read_config",
    "write_model_folder",
]

MODEL_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.txt", "*.model")
MAX_CONFIG_BYTES = 4 * 1024**2


def find_folder(
    path_or_name: str | Path,
    files: Iterable[str] = MODEL_FILES,
    wanted: str = "model folder",
    holds: str = "config.json and model.safetensors",
) -> Path:
    """The folder for a path, a built-in name ("tiny") or a hub name ("org/name", "org/name@revision").

    Local paths come first, then built-in names. Only what cannot be a local path is looked up on the hub: where the
    folder `org` exists here, write `hf://org/name`. `files` are the patterns of what is downloaded; `wanted`
    and what it `holds` are for the message.

    Raises:
        CheckpointError: there is no such folder; the message says what was tried.
    """
    name = str(path_or_name)
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{path} is a file: give the folder that it lies in")
    if not isinstance(path_or_name, Path):
        builtin = builtin_folders()
        if name in builtin:
            return builtin[name]
        if name.startswith(HUB_PREFIX) or (is_hub_name(name) and not path.parent.is_dir()):
            return download(name.removeprefix(HUB_PREFIX), list(files))
    raise CheckpointError(_not_found(name, wanted, holds))


def _not_found(name: str, wanted: str, holds: str) -> str:
    builtin = builtin_folders()
    known = f" Built in: {', '.join(builtin)}." if builtin else ""
    hint = f" For the hub write {HUB_PREFIX}{name}." if is_hub_name(name) else ""
    what = f"no {wanted} at {name}: give a folder that holds {holds}."
    return f"{what}{did_you_mean(name, builtin)}{known}{hint}"


def builtin_folders() -> dict[str, Path]:
    """The models that come with the package, by name: every folder of `groundup/models/pretrained` with a config."""
    root = Path(__file__).resolve().parents[1] / "models" / "pretrained"
    return {path.parent.name: path.parent for path in sorted(root.glob("*/config.json"))}


def read_config(folder: str | Path, name: str = "config.json") -> dict[str, Any]:
    """The folder's config in canonical spelling (`normalise_config`), with sizes checked.

    Keys that name Python code to be run (`auto_map`, `trust_remote_code`) are dropped with a warning: code from a
    model folder is never imported. A bare Infinity comes as transformers 5 spells it (`INFINITY`).

    Raises:
        CheckpointError: no config, not an object, damaged, or with absurd sizes.
    """
    folder = Path(folder)
    where = str(folder / name)
    value = read_json(safe_join(folder, name, also=hub_blobs(folder)), max_bytes=MAX_CONFIG_BYTES, infinity=INFINITY)
    if not isinstance(value, dict):
        raise CheckpointError(f"{where} must hold an object, found {type(value).__name__}")
    config, code = without_code_keys(value)
    if code:
        warn(
            f"{where} names Python code ({', '.join(sorted(set(code)))}), "
            "which is ignored: code from model folders is never run"
        )
    check_sizes(config, where)
    return normalise_config(config)


def write_model_folder(
    folder: str | Path, config: dict[str, Any], generation_config: dict[str, Any] | None = None
) -> Path:
    """Write config.json (both spellings) and generation_config.json; `ShardWriter` writes the weights."""
    folder = Path(folder)
    write_json(folder / "config.json", both_spellings(config))
    if generation_config is not None:
        write_json(folder / "generation_config.json", generation_config)
    return folder


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically, indented, with sorted keys; NaN and Infinity are errors."""
    try:
        text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise CheckpointError(f"cannot write {path}: {error}") from None
    write_atomic(path, text + "\n")
