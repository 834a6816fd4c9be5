"""Exchange parts of a built model from outside: adapters, quantized layers and faster kernels are all this."""

import fnmatch
from collections.abc import Callable, Iterable

from torch import nn

from groundup.base.errors import UsageError


def matching(model: nn.Module, patterns: str | Iterable[str]) -> dict[str, nn.Module]:
    """The modules whose dotted names match a pattern (`blocks.*.attn.[qv]_proj`), in the model's order.

    `*` stands for any characters, dots included. A module inside another match is left out, as it goes with it.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        inside = any(name.startswith(outer + ".") for outer in found)
        if name and not inside and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            found[name] = module
    return found


def replace(model: nn.Module, patterns: str | Iterable[str], make: Callable[[nn.Module], nn.Module]) -> int:
    """Put `make(module)` in the place of every module whose dotted name matches; all other names stay as they are.

    A module that stands in several places (shared weights) is made once and stays shared.

    Args:
        model: changed in place.
        patterns: see `matching`.
        make: the new module from the old; return the old one to leave it.

    Returns:
        How many modules were replaced.

    Raises:
        UsageError: nothing matches.
    """
    found = matching(model, patterns)
    if not found:
        some = ", ".join([name for name, _ in model.named_modules() if name][:8])
        raise UsageError(f"no module matches {patterns!r}; names look like: {some}, ...")
    made: dict[int, nn.Module] = {}
    for module in found.values():  # all of them first: a model is never left half replaced
        if id(module) not in made:
            made[id(module)] = _keep_mode(module, make(module))
    for name, module in found.items():
        put(model, name, made[id(module)])
    return len(found)


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Make `module` the part of the model with this dotted name."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def _keep_mode(old: nn.Module, new: nn.Module) -> nn.Module:
    """The new part trains or not as the old one did, and remembers the same part of a state."""
    if hasattr(old, "path") and not getattr(new, "path", ""):
        new.path = old.path  # type: ignore[assignment]
    return new.train(old.training)
