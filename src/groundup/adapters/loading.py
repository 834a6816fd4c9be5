"""The model that an adapter's folder stands for: its base, with the adapter on it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.adapters.attach import adapters_of
from groundup.adapters.files import CONFIG, load_adapter
from groundup.base.errors import CheckpointError
from groundup.base.files import read_json
from groundup.models import hub

if TYPE_CHECKING:
    from groundup.models.text.causal_lm import CausalLM


def load_model(path: str | Path, dtype: Any = None, device: Any = None) -> "CausalLM":
    """Load the base that the folder names, and put the adapter on it.

    Args:
        path: folder of an adapter.
        dtype: of the base's weights; as stored when None.
        device: where they go; the CPU when None.

    Raises:
        CheckpointError: the folder names no base, or one that cannot be found; or the adapter does not fit it.
    """
    path = Path(path)
    return load_adapted([path], base_of(path), dtype, device)


def load_adapted(paths: Sequence[str | Path], base: str | Path, dtype: Any = None, device: Any = None) -> "CausalLM":
    """Load a base and put the adapters of several folders on it; all of them act, in this order.

    The first is called `default`, the others `adapter_2`, `adapter_3`, ...

    Raises:
        CheckpointError: no such base, or an adapter that does not fit it.
    """
    model = hub.load_model(base, dtype, device)
    before = list(adapters_of(model).configs)  # where the base is a folder of an adapter itself
    names = [name_of(number) for number in range(len(before), len(before) + len(paths))]
    for path, name in zip(paths, names, strict=True):
        load_adapter(model, path, name)
    adapters_of(model).activate(*before, *names)
    return model.eval()


def name_of(number: int) -> str:
    """What an adapter is called that comes without a name."""
    return "default" if number == 0 else f"adapter_{number + 1}"


def base_of(path: Path) -> str | Path:
    """The base that an adapter's folder names; a relative path may start from the folder, too."""
    values = read_json(path / CONFIG)
    named = values.get("base_model_name_or_path") if isinstance(values, dict) else None
    if not named or not isinstance(named, str):
        raise CheckpointError(
            f"{path / CONFIG} does not say which base it belongs to: set `base_model_name_or_path`, or load the base "
            "yourself and call load_adapter(model, folder)"
        )
    if not Path(named).exists() and (path / named).exists():
        return path / named
    return named
