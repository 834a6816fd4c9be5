"""The Hugging Face hub: the only place where the package uses a network, and only for a name that the user gave."""

import re
from pathlib import Path
from typing import Any

from groundup.base.console import say
from groundup.base.errors import CheckpointError

HUB_PREFIX = "hf://"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}(@[\w./-]{1,128})?")
# Patterns are names or endings of names; what could be a pickle or a program is never asked for.
_SAFE_ENDINGS = (".safetensors", ".json", ".jinja", ".txt", ".model", ".md")


def is_hub_name(name: str) -> bool:
    """Whether `name` has the form `org/name` or `org/name@revision`."""
    return _NAME.fullmatch(name) is not None and ".." not in name


def download(name: str, files: list[str]) -> Path:
    """The folder of a hub model in the local cache, after downloading what is missing of `files` (patterns).

    HF_HUB_OFFLINE=1 uses the cache alone; HF_TOKEN, HF_HOME and HF_ENDPOINT work as usual.

    Raises:
        CheckpointError: no such model, no access, no network; the message says what to do.
    """
    if not is_hub_name(name):
        raise CheckpointError(f"{name!r} is not a hub name: `org/name` or `org/name@revision` is expected")
    if unsafe := [pattern for pattern in files if not pattern.endswith(_SAFE_ENDINGS)]:
        raise CheckpointError(
            f"{unsafe[0]!r} is not among the files that are taken from the hub: {', '.join(_SAFE_ENDINGS)}"
        )
    import huggingface_hub

    repository, _, revision = name.partition("@")
    say(f"looking for {name} in the hub's cache, or on the hub")
    try:
        return Path(huggingface_hub.snapshot_download(repository, revision=revision or None, allow_patterns=files))
    except Exception as error:
        raise CheckpointError(explain(error, name)) from error


def explain(error: Any, name: str) -> str:
    """What a failed download means; unknown errors are passed on as text."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return f"{name} asks for consent: agree to its terms on https://huggingface.co/{name}, then set HF_TOKEN"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the hub has no model {name}, or it is private: check the spelling, or set HF_TOKEN"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the hub's model has no such revision: {name}"
    if isinstance(error, (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError)):
        return (
            f"{name} is not in the local cache and the hub was not reached (offline, or HF_HUB_OFFLINE is set): "
            "connect once, or copy its folder here and give the path"
        )
    return f"downloading {name} failed: {type(error).__name__}: {error}"
