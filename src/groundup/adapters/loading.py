"""The model that an adapter's folder stands for: its base, with the adapter on it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        dtype, device: of the base, see `groundup.load_model`.

    Raises:
        CheckpointError: the folder names no base, or one that cannot be found; or the adapter does not fit it.
    """
    path = Path(path)
    model = hub.load_model(base_of(path), dtype, device)
    load_adapter(model, path)
    return model.eval()


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
