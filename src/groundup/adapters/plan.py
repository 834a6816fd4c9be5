"""What an adapter would put where. Nothing is changed before all of it is known to fit."""

import fnmatch
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from torch import nn

from groundup.adapters.ahead import Ahead
from groundup.adapters.part import Part
from groundup.base.errors import UsageError, did_you_mean
from groundup.layers.moe.experts import GroupedLinear

ALL_LINEAR = "all-linear"


@dataclass
class Plan:
    """What an adapter puts on a model.

    Attributes:
        parts: dotted name of a module -> the part it gets.
        tensors: names of tensors of the base that this adapter trains copies of (BitFit, partial fine-tuning).
        prompt: what stands ahead of the tokens, or None.
    """

    parts: dict[str, Part] = field(default_factory=dict)
    tensors: tuple[str, ...] = ()
    prompt: Ahead | None = None


def is_linear(module: nn.Module) -> bool:
    """Whether a module multiplies by one matrix: `nn.Linear`, and what quantization puts in its place."""
    return isinstance(module, nn.Linear) or (hasattr(module, "dequantize") and not isinstance(module, GroupedLinear))


def targets(
    model: nn.Module,
    wanted: Iterable[str],
    fits: Callable[[nn.Module], bool] = lambda m: is_linear(m) or isinstance(m, GroupedLinear),
    what: str = "linear layers",
) -> dict[str, nn.Module]:
    """The modules that a list of targets names.

    Args:
        model: any model.
        wanted: `all-linear` (those in blocks), names of leaves (`q_proj`), or patterns of dotted names.
        fits: which modules can be targets at all.
        what: what these are, for the message.

    Raises:
        UsageError: one of the targets names nothing; the message lists what there is.
    """
    # what quantized experts are made of is no target of its own
    experts = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, GroupedLinear))
    possible = {
        name: module
        for name, module in model.named_modules()
        if name and is_base(name) and fits(module) and not name.startswith(experts)
    }
    found: dict[str, nn.Module] = {}
    for target in wanted:
        named = {name: module for name, module in possible.items() if named_by(target, name)}
        if not named:
            leaves = sorted({name.rpartition(".")[2] for name in possible})
            raise UsageError(
                f"no {what} are called `{target}`.{did_you_mean(target, leaves)} There are: {', '.join(leaves)}"
            )
        found |= named
    return {name: module for name, module in possible.items() if name in found}


def named_by(target: str, name: str) -> bool:
    """Whether a target (`all-linear`, a leaf name, a pattern) means the module of this dotted name."""
    if target == ALL_LINEAR:
        return name.startswith("blocks.")
    return name == target or name.endswith("." + target) or fnmatch.fnmatchcase(name, target)


def is_base(name: str) -> bool:
    """Whether a parameter of this name is the model's own, not of an adapter."""
    return ".adapters." not in name and not name.startswith("prompt.")
