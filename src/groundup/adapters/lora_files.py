"""LoRA in peft's files: names, settings, and matrices that lie otherwise there (see names.py)."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from groundup.adapters.attach import adapters_of
from groundup.adapters.config import FromPeft, InPeft, Loaded
from groundup.adapters.configs.lora import LoRAConfig
from groundup.adapters.files import CONFIG, Given, compare
from groundup.adapters.lora import LoRA, base_tensors, factors, lora_targets, row_lengths, sizes
from groundup.adapters.names import PREFIX, Names, NoPeftForm, transposes
from groundup.adapters.part import Part, base_shape, base_weight
from groundup.adapters.plan import Plan, is_linear
from groundup.base.errors import CheckpointError, UsageError
from groundup.weights import Rule

LINEAR, EMBEDDING = ("lora_A.weight", "lora_B.weight"), ("lora_embedding_A", "lora_embedding_B")
MAGNITUDE = "lora_magnitude_vector"
FOR_TRAINING = (
    "init_lora_weights",
    "fan_in_fan_out",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "runtime_config",
    "megatron_core",
    "ensure_weight_tying",
    "qalora_group_size",
    "layers_pattern",
)
"""Settings of peft that do not change what a trained adapter does."""


# -- ours -> theirs ---------------------------------------------------------------------------------------------------


def to_peft(model: Any, name: str, config: LoRAConfig) -> InPeft:
    """See `AdapterConfig.to_peft`."""
    names, plan = Names(model), adapters_of(model).plans[name]
    groups: dict[str, Rule] = {}
    for where in plan.parts:
        rule = names.rule_of_ours(where)
        groups[names.theirs(where)] = rule
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    scales: dict[str, float] = {}
    blocks: dict[str, list[int]] = {}
    for theirs, rule in groups.items():
        layers = [model.get_submodule(ours) for ours in rule.ours]
        parts = [plan.parts.get(ours) for ours in rule.ours]
        added, widths, scales[theirs] = _joined(names, rule, layers, parts)  # type: ignore[arg-type]
        ranks[theirs] = sum(widths)
        if len(widths) > 1:
            blocks[theirs] = widths
        tensors |= {f"{PREFIX}{theirs}.{leaf}": tensor for leaf, tensor in added.items()}
    tensors |= _base_to_peft(model, names, config, plan)
    values = _values(names, config, groups, ranks, scales)
    notes = {"init": config.init} | ({"blocks": blocks} if blocks else {})
    return InPeft(values, tensors, notes)


def _joined(
    names: Names, rule: Rule, layers: list[nn.Module], parts: list[LoRA | None]
) -> tuple[dict[str, Tensor], list[int], float]:
    """One A and B (and magnitude) for a matrix of theirs; the rank of each of ours in it; its scale."""
    shapes = [base_shape(layer) for layer in layers]
    there = [part for part in parts if part is not None]
    if isinstance(layers[0], nn.Embedding):
        if len(rule.ours) != 1 or len(rule.theirs) != 1:
            raise NoPeftForm(f"{rule.ours[0]} shares a table elsewhere")
    else:
        names.check_rows(rule, shapes)
    scale = there[0].scale
    pairs = [None if part is None else factors(part) for part in parts]
    widths = [0 if pair is None else len(pair[0]) for pair in pairs]
    a = torch.cat([pair[0] for pair in pairs if pair is not None])
    ends = torch.tensor(widths).cumsum(0).tolist()
    rows = []
    for shape, pair, end, width in zip(shapes, pairs, ends, widths, strict=True):
        block = a.new_zeros(shape[0], sum(widths))
        if pair is not None:
            block[:, end - width : end] = pair[1] / scale
        rows.append(block)
    if isinstance(layers[0], nn.Embedding):
        added = dict(zip(EMBEDDING, (a, rows[0]), strict=True))
    else:
        added = dict(zip(LINEAR, (a, names.join(rule, rows)), strict=True))
    if any(part.lora_magnitude is not None for part in there):
        lengths = [
            row_lengths(base_weight(layer).to(a.dtype)) if part is None else part.lora_magnitude
            for layer, part in zip(layers, parts, strict=True)
        ]
        joined = lengths[0] if isinstance(layers[0], nn.Embedding) else names.join(rule, lengths)  # type: ignore[arg-type]
        added[MAGNITUDE] = joined  # type: ignore[assignment]
    return added, widths, scale


def _base_to_peft(model: Any, names: Names, config: LoRAConfig, plan: Plan) -> dict[str, Tensor]:
    """The base's tensors that the adapter has its own version of."""
    known = dict(model.named_parameters())
    carried = {names.theirs(where) for where in plan.parts}
    found: dict[str, Tensor] = {}
    pairs = names.map.match_ours(plan.tensors) if plan.tensors else []
    for pair in pairs:
        theirs = pair.operation.save([known[name].detach() for name in pair.ours])
        for name, tensor in zip(pair.theirs, theirs, strict=True):
            module, _, leaf = name.rpartition(".")
            found[f"{PREFIX}{module}.base_layer.{leaf}" if module in carried else PREFIX + name] = tensor
    return found


def _values(
    names: Names, config: LoRAConfig, groups: dict[str, Rule], ranks: dict[str, int], scales: dict[str, float]
) -> dict[str, Any]:
    alphas = {theirs: scales[theirs] * (ranks[theirs] ** 0.5 if config.rslora else ranks[theirs]) for theirs in groups}
    rank, alpha = _commonest(ranks.values()), _commonest(alphas.values())
    return {
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "r": rank,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.rslora,
        "use_dora": config.dora,
        "bias": config.bias,
        "init_lora_weights": True,
        "fan_in_fan_out": all(transposes(rule.operation) for rule in groups.values()),
        "target_modules": _shortened(list(groups), names.all_theirs()),
        "modules_to_save": [names.theirs(_module(names, each)) for each in config.modules_to_save] or None,
        "rank_pattern": {re.escape(theirs): r for theirs, r in ranks.items() if r != rank},
        "alpha_pattern": {re.escape(theirs): a for theirs, a in alphas.items() if a != alpha},
    }


def _commonest(values: Iterable[Any]) -> Any:
    values = list(values)
    return max(dict.fromkeys(values), key=values.count)


def _module(names: Names, pattern: str) -> str:
    if pattern not in names.modules:
        raise NoPeftForm(f"`modules_to_save`: {pattern} has no name of its own elsewhere")
    return pattern


def _shortened(modules: list[str], known: list[str]) -> list[str]:
    """Leaf names where they mean these modules and no others, the whole names otherwise."""
    leaves = {module.rpartition(".")[2] for module in modules}
    meant = {module for module in known if module.rpartition(".")[2] in leaves}
    return sorted(leaves) if meant == {*modules} else modules


# -- theirs -> ours ---------------------------------------------------------------------------------------------------


@dataclass
class Described:
    """The settings of a file, read."""

    config: LoRAConfig
    rank: int
    alpha: float
    ranks: dict[str, int]
    alphas: dict[str, float]
    modules_to_save: list[str]
    names: "Wanted"


def from_peft(model: Any, given: FromPeft) -> Loaded:
    """See `AdapterConfig.from_peft`."""
    names, described = Names(model), _read_values(given)
    carried, rest = _by_module(given.tensors)
    _check_modules(names, model, described, carried, given)
    blocks = given.notes.get("blocks", {})
    parts: dict[str, Part] = {}
    for theirs, tensors in carried.items():
        parts |= _parts_of(model, names, described, theirs, tensors, blocks.get(theirs), given)
    tensors = _base_from_peft(model, names, described, parts, rest, given)
    biases = base_tensors(model, described.config, list(parts))
    saved = {name.rpartition(".")[0] for name in tensors if name not in biases}
    config = _settings_of(model, described, parts).model_copy(update={"modules_to_save": sorted(saved)})
    return Loaded(config, Plan(parts, tuple(tensors)), tensors)


def _read_values(given: FromPeft) -> Described:
    values = Given(given)
    rank, alpha = values.take("r", 8), values.take("lora_alpha", 8)
    ranks, alphas = values.take("rank_pattern", {}), values.take("alpha_pattern", {})
    targets, saved = values.take("target_modules", []), values.take("modules_to_save", [])
    wanted = Wanted(targets, values.take("exclude_modules", []), values.take("layers_to_transform"))
    values.ignore(FOR_TRAINING)
    fields = {
        "dropout": values.take("lora_dropout", 0.0),
        "rslora": values.take("use_rslora", False),
        "dora": values.take("use_dora", False),
        "bias": values.take("bias", "none"),
    }
    values.done()
    whole = isinstance(rank, int) and all(isinstance(r, int) and r > 0 for r in ranks.values())
    if not whole or not all(isinstance(a, int | float) for a in (alpha, *alphas.values())):
        raise CheckpointError(f"{given.folder / CONFIG}: ranks must be whole numbers, alphas numbers")
    try:
        config = LoRAConfig.parse(fields | {"rank": rank, "alpha": alpha}, where=str(given.folder / CONFIG))
    except UsageError as error:
        raise CheckpointError(str(error)) from None
    return Described(config, rank, alpha, ranks, alphas, saved, wanted)


class Wanted:
    """Which modules of theirs the settings of a file name: leaf names, or one regular expression for whole names."""

    def __init__(self, targets: Any, exclude: Any, layers: Any):
        self.targets, self.exclude = targets, exclude
        self.layers = [layers] if isinstance(layers, int) else layers

    def __contains__(self, module: str) -> bool:
        if self.exclude and _meant(self.exclude, module):
            return False
        number = re.search(r"\.(\d+)\.", module)
        if self.layers is not None and (number is None or int(number[1]) not in self.layers):
            return False
        return _meant(self.targets, module)


def _meant(targets: Any, module: str) -> bool:
    if targets == "all-linear":
        return not re.search(r"(^|\.)(lm_head|embed_out|output_layer|head)$", module)
    if isinstance(targets, str):
        return re.fullmatch(targets, module) is not None
    return any(module == target or module.endswith("." + target) for target in targets)


_LEAF = re.compile(r"^(.*)\.(lora_A\.weight|lora_B\.weight|lora_embedding_[AB]|lora_magnitude_vector)(\.weight)?$")


def _by_module(tensors: dict[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """The matrices of LoRA, module of theirs -> leaf -> tensor; and all other tensors."""
    carried: dict[str, dict[str, Tensor]] = defaultdict(dict)
    rest = {}
    for key, tensor in tensors.items():
        found = _LEAF.match(key)
        if found is None:
            rest[key] = tensor
        else:
            carried[found[1].removeprefix(PREFIX)][found[2]] = tensor
    return dict(carried), rest


def _check_modules(names: Names, model: Any, described: Described, carried: dict[str, Any], given: FromPeft) -> None:
    unknown = [module for module in carried if names.rule_of_theirs(module) is None]
    if unknown:
        raise CheckpointError(
            f"{given.folder} has matrices for {len(unknown)} modules that a {model.config.family()} lacks, such as "
            f"{unknown[0]}: it was made for another base"
        )
    rules = {module: names.rule_of_theirs(module) for module in names.all_theirs()}
    linear = {module for module, rule in rules.items() if rule and _can_carry(names.modules[rule.ours[0]])}
    wanted = {module for module in linear if module in described.names}
    missing = sorted(wanted - carried.keys())
    unexpected = sorted(carried.keys() - wanted)
    if described.names.targets != "all-linear" and (missing or unexpected):
        what, which = ("lacks", missing) if missing else ("has, beside its targets,", unexpected)
        raise CheckpointError(
            f"{given.folder} {what} the matrices of {len(which)} modules, such as {which[0]}: take a whole copy, "
            "or the base that it was made for"
        )


def _can_carry(module: nn.Module) -> bool:
    return is_linear(module) or isinstance(module, nn.Embedding)


def _parts_of(
    model: Any,
    names: Names,
    described: Described,
    theirs: str,
    tensors: dict[str, Tensor],
    widths: list[int] | None,
    given: FromPeft,
) -> dict[str, Part]:
    """The parts of ours that one module of theirs makes."""
    rule = names.rule_of_theirs(theirs)
    assert rule is not None
    layers = [model.get_submodule(ours) for ours in rule.ours]
    table = isinstance(layers[0], nn.Embedding)
    if not table:
        names.check_rows(rule, [base_shape(layer) for layer in layers])
    rank = next((r for key, r in described.ranks.items() if _pattern(key, theirs)), described.rank)
    alpha = next((a for key, a in described.alphas.items() if _pattern(key, theirs)), described.alpha)
    first, second = EMBEDDING if table else LINEAR
    inner, outer = sizes(layers[0])[0], sum(sizes(layer)[1] for layer in layers)
    wanted = {first: (rank, inner), second: (outer, rank)} | ({MAGNITUDE: (outer,)} if described.config.dora else {})
    prefix = f"{PREFIX}{theirs}."
    compare(
        {prefix + leaf: shape for leaf, shape in wanted.items()},
        {prefix + leaf: tensor for leaf, tensor in tensors.items()},
        given.folder,
    )
    a, scale = tensors[first], alpha / (rank**0.5 if described.config.rslora else rank)
    bs = [tensors[second]] if table else names.split(rule, tensors[second])
    lengths = [None] * len(layers)
    if described.config.dora:
        lengths = [tensors[MAGNITUDE]] if table else names.split(rule, tensors[MAGNITUDE])
    parts: dict[str, Part] = {}
    for ours, layer, b, length, own in zip(rule.ours, layers, bs, lengths, _own_blocks(bs, widths), strict=True):
        if own.start == own.stop and not described.config.dora:
            continue  # this one was no target
        if own.start == own.stop:
            own = slice(0, rank)
        parts[ours] = _part(layer, described.config, a[own], b[:, own], length, scale, given.notes.get("init"))
    return parts


def _own_blocks(bs: list[Tensor], widths: list[int] | None) -> list[slice]:
    """The columns of B that belong to each of ours: all, or where we wrote blocks its own."""
    rank = bs[0].shape[1]
    if not widths or len(widths) != len(bs) or sum(widths) != rank:
        return [slice(0, rank)] * len(bs)
    ends = torch.tensor(widths).cumsum(0).tolist()
    own = [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]
    for b, columns in zip(bs, own, strict=True):
        outside = torch.ones(rank, dtype=torch.bool)
        outside[columns] = False
        if b[:, outside].any():  # trained further elsewhere: no blocks any more
            return [slice(0, rank)] * len(bs)
    return own


def _part(
    layer: nn.Module, config: LoRAConfig, a: Tensor, b: Tensor, length: Tensor | None, scale: float, init: Any
) -> LoRA:
    """A part with these matrices. With PiSSA's note the second half is the start that it is held against."""
    rank = len(a)
    halves = init == "pissa" and rank % 2 == 0
    plain = config.model_copy(update={"init": "kaiming", "dora": False})
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        part = LoRA(layer, plain, rank // 2 if halves else rank, scale)
        kept = part.rank
        part.lora_A.weight.copy_(a[:kept])
        part.lora_B.weight.copy_(b[:, :kept])
        if halves:
            part.start_A = a[kept:].to(part.lora_A.weight).clone()
            part.start_B = -b[:, kept:].to(part.lora_B.weight)
        if length is not None:
            part.lora_magnitude = nn.Parameter(length.to(part.lora_A.weight).clone())
    return part


def _pattern(key: str, module: str) -> bool:
    return re.match(rf"(.*\.)?({key})$", module) is not None


def _settings_of(model: Any, described: Described, parts: dict[str, Any]) -> LoRAConfig:
    """Our settings for these parts: leaf names where they name just these."""
    rslora = described.config.rslora
    ranks = {where: part.rank for where, part in parts.items()}
    alphas = {where: part.scale * (part.rank**0.5 if rslora else part.rank) for where, part in parts.items()}
    rank, alpha = _commonest(ranks.values()), _commonest(alphas.values())
    leaves = sorted({where.rpartition(".")[2] for where in parts})
    exact = {*lora_targets(model, leaves)} == {*parts}
    halved = any(part.start_A is not None for part in parts.values())
    return described.config.model_copy(
        update={
            "rank": rank,
            "alpha": alpha,
            "init": "pissa" if halved else "kaiming",
            "targets": leaves if exact else list(parts),
            "ranks": {where: r for where, r in ranks.items() if r != rank},
            "alphas": {where: a for where, a in alphas.items() if a != alpha},
        }
    )


def _base_from_peft(
    model: Any, names: Names, described: Described, parts: dict[str, Part], rest: dict[str, Tensor], given: FromPeft
) -> dict[str, Tensor]:
    """The adapter's version of the base's tensors, under our names."""
    theirs = {}
    for key, tensor in rest.items():
        if ".original_module." not in key:  # the base's own beside the trained copy
            theirs[key.removeprefix(PREFIX).replace(".base_layer.", ".").replace(".modules_to_save.", ".")] = tensor
    try:
        found = dict(names.map.load(theirs, theirs.__getitem__))
        saved = dict(names.map.load(kept := [key for key in theirs if _saved(described, key)], theirs.__getitem__))
    except CheckpointError as error:
        raise CheckpointError(f"{given.folder} does not fit this model: {error}") from None
    _check_saved(described, kept, given)
    known = dict(model.named_parameters())
    if tied := [name for name in saved if name not in known]:
        raise CheckpointError(
            f"{given.folder} has its own {tied[0]}, which is no tensor of its own in this model (it may be tied to the "
            "embedding): untie the base first"
        )
    found = {name: tensor for name, tensor in found.items() if name in known or name in saved}
    compare({name: tuple(known[name].shape) for name in found}, found, given.folder)
    biases = base_tensors(model, described.config, list(parts))
    if lacking := [name for name in biases if name not in found]:
        raise CheckpointError(
            f"{given.folder} lacks {len(lacking)} biases, such as {lacking[0]}: take a whole copy of it"
        )
    for name in found.keys() - saved.keys() - {*biases}:  # peft writes embeddings as they are beside what was trained
        if not torch.equal(found[name].to(known[name]), known[name]):
            raise CheckpointError(
                f"{given.folder} has {name}, which is neither in `modules_to_save` nor a bias that its settings name, "
                "and is not this model's: it was made for another base"
            )
    return {name: tensor for name, tensor in found.items() if name in saved or name in biases}


def _saved(described: Described, key: str) -> bool:
    return any(f".{module}." in f".{key}" for module in described.modules_to_save)


def _check_saved(described: Described, kept: list[str], given: FromPeft) -> None:
    for module in described.modules_to_save:
        if not any(f".{module}." in f".{key}" for key in kept):
            raise CheckpointError(
                f"{given.folder} lacks the tensors of {module}, which its settings list under `modules_to_save`: take "
                "a whole copy"
            )
