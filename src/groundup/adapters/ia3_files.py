"""(IA)3 in peft's files: a vector for each matrix of theirs, `ia3_l` (out, 1) or (1, in)."""

from typing import Any

import torch
from torch import Tensor

from groundup.adapters.attach import adapters_of
from groundup.adapters.config import FromPeft, InPeft, Loaded
from groundup.adapters.configs.ia3 import IA3Config
from groundup.adapters.files import CONFIG, Given
from groundup.adapters.ia3 import IA3
from groundup.adapters.names import PREFIX, Names, NoPeftForm, transposes
from groundup.adapters.part import base_shape
from groundup.adapters.plan import Plan
from groundup.base.errors import CheckpointError
from groundup.weights import Rule

LEAF = ".ia3_l"


def to_peft(model: Any, name: str) -> InPeft:
    """See `AdapterConfig.to_peft`."""
    names, parts = Names(model), adapters_of(model).plans[name].parts
    groups = {names.theirs(where): names.rule_of_ours(where) for where in parts}
    tensors = {f"{PREFIX}{theirs}{LEAF}": _joined(model, names, rule, parts) for theirs, rule in groups.items()}
    inputs = [theirs for theirs, rule in groups.items() if _of(parts, rule)[0].side == "input"]
    values = {
        **{"task_type": "CAUSAL_LM", "inference_mode": True, "init_ia3_weights": True},
        **{"target_modules": list(groups), "feedforward_modules": inputs},
        "fan_in_fan_out": all(transposes(rule.operation) for rule in groups.values()),
    }
    return InPeft(values, tensors)


def _of(parts: dict[str, Any], rule: Rule) -> list[IA3]:
    return [parts[where] for where in rule.ours if where in parts]


def _joined(model: Any, names: Names, rule: Rule, parts: dict[str, Any]) -> Tensor:
    """One vector for a matrix of theirs; ones for those of ours in it that have none."""
    shapes = [base_shape(model.get_submodule(where)) for where in rule.ours]
    names.check_rows(rule, shapes)
    there = _of(parts, rule)
    if there[0].side == "input":
        if len(rule.ours) > 1:
            raise NoPeftForm(f"{rule.ours[0]} shares its input with others elsewhere")
        return there[0].ia3_l
    vectors = [
        parts[where].ia3_l if where in parts else torch.ones(shape[0], 1)
        for where, shape in zip(rule.ours, shapes, strict=True)
    ]
    return names.join(rule, vectors)


def from_peft(model: Any, given: FromPeft) -> Loaded:
    """See `AdapterConfig.from_peft`."""
    names, values = Names(model), Given(given)
    wanted, inputs = values.take("target_modules", []), values.take("feedforward_modules", [])
    values.ignore(("fan_in_fan_out", "init_ia3_weights", "exclude_modules"))
    values.done()
    if isinstance(wanted, str) or isinstance(inputs, str):
        raise CheckpointError(
            f"{given.folder / CONFIG}: target_modules as a pattern is not known here: list the modules"
        )
    outputs: dict[str, Tensor] = {}
    columns: dict[str, Tensor] = {}
    for key, tensor in given.tensors.items():
        theirs = key.removeprefix(PREFIX).removesuffix(LEAF)
        rule = names.rule_of_theirs(theirs) if key == f"{PREFIX}{theirs}{LEAF}" else None
        if rule is None:
            raise CheckpointError(f"{given.folder} has {key}, which has no place in this model")
        names.check_rows(rule, [base_shape(model.get_submodule(where)) for where in rule.ours])
        if any(theirs.endswith(end) for end in inputs):
            columns |= dict.fromkeys(rule.ours, tensor)
        else:
            outputs |= dict(zip(rule.ours, names.split(rule, tensor), strict=True))
    config = IA3Config(outputs=list(outputs), inputs=list(columns))
    plan = config.plan(model, given.name)
    _fill(plan, outputs | columns, given)
    return Loaded(config, plan)


def _fill(plan: Plan, vectors: dict[str, Tensor], given: FromPeft) -> None:
    for where, part in plan.parts.items():
        own: Tensor = part.ia3_l  # type: ignore[assignment]
        if own.shape != vectors[where].shape:
            raise CheckpointError(
                f"{given.folder}: {where} is stored as {(*vectors[where].shape,)}, wanted {(*own.shape,)}"
            )
        own.data.copy_(vectors[where])
