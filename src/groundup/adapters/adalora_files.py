"""AdaLoRA in peft's files. Those hold the triplets that were chosen, and `rank_pattern` tells which these are."""

from typing import Any

import torch
from torch import Tensor

from groundup.adapters.adalora import AdaLoRA
from groundup.adapters.attach import adapters_of
from groundup.adapters.config import FromPeft, InPeft, Loaded
from groundup.adapters.configs.adalora import AdaLoRAConfig
from groundup.adapters.files import CONFIG, Given
from groundup.adapters.names import PREFIX, Names, NoPeftForm, transposes
from groundup.adapters.part import base_shape
from groundup.base.errors import CheckpointError, UsageError

FIELDS = {
    **{"init_r": "rank", "target_r": "target_rank", "total_step": "steps", "tinit": "warmup", "tfinal": "final"},
    **{"deltaT": "every", "beta1": "beta1", "beta2": "beta2", "orth_reg_weight": "orthogonality"},
    **{"lora_alpha": "alpha", "lora_dropout": "dropout"},
}
"""Settings, theirs -> ours."""
FOR_TRAINING = (
    *("r", "init_lora_weights", "fan_in_fan_out", "loftq_config", "eva_config", "corda_config", "lora_ga_config"),
    *("runtime_config", "megatron_core", "ensure_weight_tying", "qalora_group_size", "layers_pattern"),
)
LEAVES = ("lora_A", "lora_E", "lora_B")


def to_peft(model: Any, name: str, config: AdaLoRAConfig) -> InPeft:
    """See `AdapterConfig.to_peft`."""
    names, parts = Names(model), _layers(adapters_of(model).plans[name].parts)
    tensors: dict[str, Tensor] = {}
    pattern: dict[str, list[bool]] = {}
    turned = []
    for where, part in parts.items():
        rule, theirs = names.rule_of_ours(where), names.theirs(where)
        if len(rule.ours) > 1:
            raise NoPeftForm(f"{where} shares {theirs} with others, and AdaLoRA has one rank for all matrices there")
        names.check_rows(rule, [base_shape(model.get_submodule(where))])
        kept, stem = part.kept.cpu(), f"{PREFIX}{theirs}"
        tensors[f"{stem}.lora_A"], tensors[f"{stem}.lora_E"] = part.lora_A[kept], part.lora_E[kept]
        tensors[f"{stem}.lora_B"] = names.join(rule, [part.lora_B[:, kept]])
        pattern[f"{theirs}.lora_E"] = kept.tolist()
        turned.append(transposes(rule.operation))
    values = {
        **{"task_type": "CAUSAL_LM", "inference_mode": True, "fan_in_fan_out": all(turned)},
        **{theirs: getattr(config, ours) for theirs, ours in FIELDS.items()},
        "target_modules": [key.removesuffix(".lora_E") for key in pattern],
        "rank_pattern": None if all(map(all, pattern.values())) else pattern,
    }
    return InPeft(values, tensors)


def _layers(parts: dict[str, Any]) -> dict[str, AdaLoRA]:
    return {where: part for where, part in parts.items() if isinstance(part, AdaLoRA)}


def from_peft(model: Any, given: FromPeft) -> Loaded:
    """See `AdapterConfig.from_peft`."""
    names, values = Names(model), Given(given)
    read = {ours: values.take(theirs) for theirs, ours in FIELDS.items()}
    pattern = values.take("rank_pattern", {})
    values.ignore(("target_modules", *FOR_TRAINING))
    if values.take("bias", "none") != "none":
        raise CheckpointError(f"{given.folder / CONFIG}: AdaLoRA with biases is not known here")
    values.done()
    triplets, kept = _by_module(names, given), _kept(pattern, given)
    found: dict[str, tuple[dict[str, Tensor], Tensor | None]] = {}
    for theirs, tensors in triplets.items():
        rule = names.rule_of_theirs(theirs)
        if rule is None or {*tensors} != {*LEAVES}:
            raise CheckpointError(f"{given.folder}: {theirs} has no place in this model, or lacks some of {LEAVES}")
        names.check_rows(rule, [base_shape(model.get_submodule(where)) for where in rule.ours])
        for where, rows in zip(rule.ours, names.split(rule, tensors["lora_B"]), strict=True):
            found[where] = (tensors | {"lora_B": rows}, kept.get(theirs))
    try:
        settings = {key: value for key, value in read.items() if value is not None} | {"targets": list(found)}
        config = AdaLoRAConfig.parse(settings, str(given.folder / CONFIG))
        plan = config.plan(model, given.name)
    except UsageError as error:
        raise CheckpointError(str(error)) from None
    for where, part in _layers(plan.parts).items():
        _fill(part, *found[where], f"{given.folder}: {where}")
    return Loaded(config, plan)


def _by_module(names: Names, given: FromPeft) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in given.tensors.items():
        module, _, leaf = key.removeprefix(PREFIX).rpartition(".")
        if leaf not in LEAVES or not key.startswith(PREFIX):
            raise CheckpointError(f"{given.folder} has {key}, which is no tensor of AdaLoRA")
        found.setdefault(module, {})[leaf] = tensor
    return found


def _kept(pattern: dict[str, Any], given: FromPeft) -> dict[str, Tensor]:
    """Module of theirs -> which triplets it keeps."""
    found = {}
    for key, values in pattern.items():
        if not isinstance(values, list) or not all(isinstance(value, bool) for value in values):
            raise CheckpointError(f"{given.folder / CONFIG}: rank_pattern of {key} must list true and false")
        found[key.partition(".lora_E")[0]] = torch.tensor(values)
    return found


def _fill(part: AdaLoRA, tensors: dict[str, Tensor], kept: Tensor | None, where: str) -> None:
    """Put the chosen triplets where they were; the others have no singular value."""
    rank = len(part.lora_E)
    kept = torch.ones(rank, dtype=torch.bool) if kept is None else kept
    a, e, b = (tensors[leaf] for leaf in LEAVES)
    if len(kept) != rank:
        raise CheckpointError(f"{where}: rank_pattern has {len(kept)} entries for rank {rank}")
    shapes = [(int(kept.sum()), part.lora_A.shape[1]), (int(kept.sum()), 1), (len(part.lora_B), int(kept.sum()))]
    if [tuple(tensor.shape) for tensor in (a, e, b)] != shapes:
        raise CheckpointError(f"{where}: stored {[tuple(t.shape) for t in (a, e, b)]}, wanted {shapes}")
    with torch.no_grad():
        part.lora_E.zero_()
        part.lora_A[kept], part.lora_E[kept], part.lora_B[:, kept] = a, e, b
        part.kept.copy_(kept)
