"""Fine-tune a share of the base's own tensors: its biases (BitFit), its head, its last blocks, all of it.

The adapter owns its version of these tensors: another can be chosen, and without it the base is what it was.
"""

import fnmatch
import re
from typing import Any

from torch import nn

from groundup.adapters.plan import Plan, is_base
from groundup.base.errors import UsageError

LAST = re.compile(r"last:(\d+)")


def bitfit(model: nn.Module) -> Plan:
    """Every bias of the model (Ben Zaken et al. 2022).

    Raises:
        UsageError: it has none.
    """
    found = tuple(n for n, _ in model.named_parameters() if is_base(n) and n.rpartition(".")[2] == "bias")
    if not found:
        raise UsageError(
            f"{type(model).__name__} has no biases, so BitFit has nothing to train: LoRA and prompts fit any family"
        )
    return Plan(tensors=found)


def partial(model: Any, wanted: list[str]) -> Plan:
    """The tensors that a list of words and patterns names: see PartialConfig.

    Raises:
        UsageError: one of them names nothing, or layers that are stored in few bits.
    """
    own = {name: p for name, p in model.named_parameters() if is_base(name)}
    found = {name for word in wanted for name in _named(model, own, word)}
    return Plan(tensors=tuple(name for name in own if name in found))


def _named(model: Any, own: dict[str, nn.Parameter], word: str) -> list[str]:
    last = LAST.fullmatch(word)
    if last is not None:
        modules = [model.blocks[i] for i in [*model.blocks][-int(last[1]) :]] if int(last[1]) else []
    elif word in ("head", "norm"):
        modules = [model.lm_head if word == "head" else model.norm]
    else:
        pattern = "*" if word == "all" else word
        names = [name for name in own if fnmatch.fnmatchcase(name, pattern)]
        return _whole(names, word, model, pattern)
    ids = {id(p) for module in modules if module is not None for p in module.parameters()}
    names = [name for name, p in own.items() if id(p) in ids]  # a head that is the embedding goes by that name
    for module in modules:
        _full_precision(module, word)
    return _whole(names, word, model, word)


def _whole(names: list[str], word: str, model: nn.Module, pattern: str) -> list[str]:
    for name, module in model.named_modules():
        if fnmatch.fnmatchcase(name + ".weight", pattern):
            _full_precision(module, word)
    if not names:
        raise UsageError(
            f"`{word}` names no tensors of {type(model).__name__}: say head, norm, last:N, all, or a pattern of names "
            "as blocks.*.mlp.*"
        )
    return names


def _full_precision(module: nn.Module | None, word: str) -> None:
    if module is not None and any(hasattr(m, "dequantize") for m in module.modules()):
        raise UsageError(f"`{word}` holds layers that are quantized: they cannot learn; choose others, or use LoRA")
