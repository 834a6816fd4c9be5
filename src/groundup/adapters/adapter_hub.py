"""The files of the `adapters` library (adapterhub.ml): bottlenecks, MAD-X's language adapters and fusions, both ways.

    adapter_config.json, adapter.safetensors or pytorch_adapter.bin
    adapter_fusion_config.json, model_adapter_fusion.safetensors or pytorch_model_adapter_fusion.bin

    save_adapter(model, folder, "task")     # their model.load_adapter(folder, use_safetensors=True) reads it
    load_adapter(model, folder)             # puts on what their model.save_adapter(folder, name) wrote

Where the library says `original_ln_before`, an adapter reads the stream, as after a block here; where it does not, what
a branch gives to the stream.
"""

import re
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from groundup.adapters.attach import Adapters, adapters_of
from groundup.adapters.bottleneck import Bottleneck
from groundup.adapters.config import AdapterConfig
from groundup.adapters.configs.bottleneck import BottleneckConfig
from groundup.adapters.configs.fusion import FusionConfig
from groundup.adapters.configs.invertible import InvertibleConfig
from groundup.adapters.fusion import Fusion
from groundup.adapters.invertible import Invertible
from groundup.adapters.part import Part
from groundup.adapters.plan import Plan
from groundup.base.errors import CheckpointError, UsageError
from groundup.base.files import read_json
from groundup.base.folders import write_json
from groundup.base.shards import ShardReader, ShardWriter
from groundup.models.formats.torch_file import TorchFile

ADAPTER = ("adapter_config.json", "adapter", "pytorch_adapter.bin")
FUSION = ("adapter_fusion_config.json", "model_adapter_fusion", "pytorch_model_adapter_fusion.bin")
"""The description, the stem of the safetensors, and the pickled file."""

PLACES = {"block": "output_adapters", "feed_forward": "output_adapters", "attention": "attention_adapters"}
LEAVES = {"down": "adapter_down.{n}", "up": "adapter_up", "norm_after": "adapter_norm_after", "scale": "scaling"}
SUBNETS = {"down": "0", "up": "2"}

FIXED = {
    **{"adapter_residual_before_ln": False, "cross_adapter": False, "is_parallel": False, "phm_layer": False},
    **{"stochastic_depth": 0.0, "use_gating": False},
}
"""What an adapter must not ask for."""
FUSION_FIXED = {
    **{"key": True, "query": True, "query_before_ln": False, "residual_before": False, "temperature": False},
    "value_before_softmax": True,
}


def is_from_hub(folder: Path) -> bool:
    """Whether a folder is of the `adapters` library: it has settings under `config`, and no `peft_type`."""
    if (folder / FUSION[0]).is_file():
        return True
    described = read_json(folder / ADAPTER[0]) if (folder / ADAPTER[0]).is_file() else None
    return isinstance(described, dict) and "config" in described and "peft_type" not in described


# -- reading ----------------------------------------------------------------------------------------------------------


def load_adapter(model: Any, folder: str | Path, name: str | None = None, *, trainable: bool = False) -> Adapters:
    """Put on an adapter, or a fusion of adapters that the model has, from a folder of the `adapters` library.

    Args:
        model: of the same sizes as the one for which it was trained.
        folder: where it lies.
        name: what it is called here; as there when None (a fusion: the names that it joins, with `_`).
        trainable: whether it goes on learning.

    Raises:
        CheckpointError: files that are damaged, or do not fit the model.
        UsageError: what the files describe has no counterpart here, by name.
    """
    folder = Path(folder)
    form = FUSION if (folder / FUSION[0]).is_file() else ADAPTER
    described = read_json(folder / form[0])
    settings = described.get("config") if isinstance(described, dict) else None
    if not isinstance(settings, dict) or not isinstance(described.get("name"), str):
        raise CheckpointError(f"{folder / form[0]} is no description of an adapter of the `adapters` library")
    theirs: str = described["name"]
    if form is FUSION:
        config: AdapterConfig = _fusion_config(settings, [str(n) for n in described.get("adapter_names", [])], folder)
    else:
        config = _adapter_config(settings, folder)
    called = name or theirs.replace(",", "_")
    plan = config.plan(model, called)
    _fill(plan, names_in_files(model, plan, theirs), _tensors(folder, form), folder)
    adapters = adapters_of(model)
    adapters.add(called, config, plan, trainable)
    return adapters


def _adapter_config(c: dict[str, Any], folder: Path) -> BottleneckConfig:
    wrong = [key for key, value in FIXED.items() if c.get(key, value) != value]
    if wrong or c.get("architecture") is not None:
        raise UsageError(f"{folder}: an adapter with {', '.join(wrong) or c['architecture']} has no counterpart here")
    stream = (c.get("original_ln_before", False), c.get("residual_before_ln", True), c.get("original_ln_after", True))
    places = ["attention"] * bool(c.get("mh_adapter")) + ["feed_forward"] * bool(c.get("output_adapter"))
    if stream in ((True, True, True), (True, False, False)):
        if "attention" in places:
            raise UsageError(f"{folder}: an adapter after attention that reads the stream has no counterpart here")
        places = ["block"]
    elif stream[0] or not stream[2]:
        raise UsageError(
            f"{folder}: original_ln_before, residual_before_ln and original_ln_after of {stream} would add the stream "
            "twice, or never, in a block that is normalised before its branches"
        )
    values: dict[str, Any] = {
        **{"places": places, "reduction_factor": c.get("reduction_factor"), "activation": c.get("non_linearity")},
        **{"norm_before": c.get("ln_before", False), "norm_after": c.get("ln_after", False)},
        **{"scaling": c.get("scaling", 1.0), "dropout": c.get("dropout", 0.0), "leave_out": c.get("leave_out", [])},
    }
    inverse = c.get("inv_adapter")
    if inverse not in (None, "nice"):
        raise UsageError(f"{folder}: an invertible adapter of kind {inverse} has no counterpart here: `nice` has")
    if inverse is None:
        return BottleneckConfig.parse(values, str(folder))
    return InvertibleConfig.parse(
        values | {"embedding_reduction_factor": c.get("inv_adapter_reduction_factor") or 2.0}, str(folder)
    )


def _fusion_config(c: dict[str, Any], of: list[str], folder: Path) -> FusionConfig:
    wrong = [key for key, value in FUSION_FIXED.items() if c.get(key, value) != value]
    if wrong:
        raise UsageError(f"{folder}: a fusion with {wrong[0]} = {c[wrong[0]]} has no counterpart here")
    values = {"of": of, "value": c.get("value", True), "dropout": c.get("dropout_prob") or 0.0}
    return FusionConfig.parse(values | {"regularisation": 0.01 * bool(c.get("regularization", True))}, str(folder))


def _tensors(folder: Path, form: tuple[str, str, str]) -> dict[str, Tensor]:
    pickled = folder / form[2]
    if pickled.is_file():
        with TorchFile(pickled) as file:
            return {name: file.get(name) for name in file.names()}
    with ShardReader(folder / f"{form[1]}.safetensors") as reader:
        return {name: tensor.clone() for name, tensor in reader.tensors()}


def _fill(plan: Plan, names: dict[str, str], theirs: dict[str, Tensor], folder: Path) -> None:
    """Copy the tensors into a plan's parts, and see that each has its place."""
    # the library stores a norm before the bottleneck under a second name
    theirs = {name: tensor for name, tensor in theirs.items() if ".adapter_norm_before." not in name}
    own = own_parameters(plan)
    missing, unexpected = {*names.values()} - {*theirs}, {*theirs} - {*names.values()}
    if missing or unexpected:
        raise CheckpointError(
            f"{folder} does not fit this model. Missing: {sorted(missing)[:3]}, unexpected: {sorted(unexpected)[:3]}"
        )
    for ours, name in names.items():
        if own[ours].shape != theirs[name].shape:
            raise CheckpointError(f"{folder}: {name} is {(*theirs[name].shape,)}, wanted {(*own[ours].shape,)}")
        if not theirs[name].isfinite().all():
            raise CheckpointError(f"{folder}: {name} holds NaN or infinity: take another copy")
        own[ours].data.copy_(theirs[name])


# -- writing ----------------------------------------------------------------------------------------------------------


def save_adapter(model: Any, folder: str | Path, name: str) -> None:
    """Write an adapter of kind `bottleneck`, `invertible` or `fusion` as the `adapters` library does.

    Raises:
        UsageError: it is of another kind, or stands at places for which the library has no name.
    """
    adapters, folder = adapters_of(model), Path(folder)
    adapters.parameters(name)
    config, plan = adapters.configs[name], adapters.plans[name]
    described: dict[str, Any] = {"hidden_size": model.config.hidden_size, "model_type": model.config.family()}  # type: ignore[union-attr]
    described |= {"model_class": None, "model_name": "", "name": name, "version": "adapters.1.3.0"}
    if isinstance(config, FusionConfig):
        form, theirs = FUSION, ",".join(config.of)
        described |= {"name": theirs, "adapter_names": list(config.of), "config": _fusion_settings(config)}
    elif isinstance(config, BottleneckConfig):
        form, theirs = ADAPTER, name
        described["config"] = _settings(config)
    else:
        raise UsageError(f"`{name}` is {type(config).__name__}, for which the `adapters` library has other files")
    own, names = own_parameters(plan), names_in_files(model, plan, theirs)
    folder.mkdir(parents=True, exist_ok=True)
    with ShardWriter(folder, stem=form[1]) as writer:
        for ours, tensor in own.items():
            writer.add(names[ours], tensor.detach().cpu())
    write_json(folder / form[0], described)


def _settings(config: BottleneckConfig) -> dict[str, Any]:
    if "block" in config.places and len(config.places) > 1:
        raise UsageError("the `adapters` library has adapters after blocks, or after branches, but not both in one")
    stream = config.places == ["block"]
    inverse = isinstance(config, InvertibleConfig)
    return {
        **FIXED,
        **{"mh_adapter": "attention" in config.places, "output_adapter": config.places != ["attention"]},
        **{"original_ln_before": stream, "original_ln_after": True, "residual_before_ln": True},
        **{"reduction_factor": config.reduction_factor, "non_linearity": config.activation},
        **{"ln_before": config.norm_before, "ln_after": config.norm_after, "scaling": config.scaling},
        **{"dropout": config.dropout, "leave_out": list(config.leave_out), "init_weights": "bert"},
        "inv_adapter": "nice" if inverse else None,
        "inv_adapter_reduction_factor": config.embedding_reduction_factor if inverse else None,
    }


def _fusion_settings(config: FusionConfig) -> dict[str, Any]:
    return {
        **FUSION_FIXED,
        **{"value": config.value, "value_initialized": config.value, "regularization": bool(config.regularisation)},
        "dropout_prob": config.dropout or None,
    }


# -- names ------------------------------------------------------------------------------------------------------------


def own_parameters(plan: Plan) -> dict[str, nn.Parameter]:
    """`WHERE.LEAF` -> each parameter of a plan."""
    return {f"{where}.{leaf}": p for where, part in plan.parts.items() for leaf, p in part.named_parameters()}


def names_in_files(model: Any, plan: Plan, adapter: str) -> dict[str, str]:
    """`WHERE.LEAF` of a plan's parameters -> their names in the library's files."""
    blocks = _prefix_of_blocks(model)
    names = {}
    for where, part in plan.parts.items():
        for leaf, _ in part.named_parameters():
            names[f"{where}.{leaf}"] = _name(blocks, where, part, leaf, adapter)
    return names


def _name(blocks: str, where: str, part: Part, leaf: str, adapter: str) -> str:
    if isinstance(part, Invertible):
        half, layer, tensor = leaf.split(".")  # F.down.weight
        return f"{blocks.split('.')[0]}.invertible_adapters.{adapter}.{half}.{SUBNETS[layer]}.{tensor}"
    _, i, *branch = where.split(".")
    place = "attention" if branch and branch[0] != "mlp" else "feed_forward"
    stem = f"{blocks}.{i}.{PLACES[place]}"
    if isinstance(part, Fusion):
        return f"{stem}.adapter_fusion_layer.{adapter}.{leaf}"
    assert isinstance(part, Bottleneck)
    layer, _, tensor = leaf.partition(".")
    if layer == "norm_before":
        return f"{stem}.adapters.{adapter}.adapter_down.0.{tensor}"
    theirs = LEAVES[layer].format(n=0 if part.norm_before is None else 1)
    return ".".join(filter(None, (stem, "adapters", adapter, theirs, tensor)))


def _prefix_of_blocks(model: Any) -> str:
    """`model.layers` in Llama's files, `transformer.h` in GPT-2's."""
    names = {name: tensor.to("meta") for name, tensor in model.state_dict().items() if ".adapters." not in name}
    for name, _ in type(model).weight_map(model.config).save(names, names.__getitem__):
        found = re.match(r"(.+?)\.\d+\.", name)
        if found:
            return found[1]
    raise UsageError(f"the files of {model.config.family()} do not number blocks: adapters have no names there")
