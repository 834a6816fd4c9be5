"""From a folder of quantized weights to a model: the layouts of GPTQ, AWQ, bitsandbytes and ChatGLM, and our own.

As in `models.hub`, everything is compared before anything is allocated, and tensors go one pair at a time.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from groundup.base.console import warn
from groundup.base.device import choose_device, choose_dtype
from groundup.base.errors import CheckpointError, UsageError
from groundup.base.folders import read_config
from groundup.base.shards import ShardReader
from groundup.layers.moe.experts import GroupedLinear
from groundup.models.catalogue import config_from_hf, model_class
from groundup.models.formats.formats import special_ids
from groundup.models.formats.reader import Weights, meta_tensor
from groundup.models.hub import compare, set_parameter, shown, stored_dtype
from groundup.quantization.config import QuantizationConfig
from groundup.quantization.configs import AnyQuantization
from groundup.quantization.experts import QuantizedExperts
from groundup.quantization.layouts.known import OURS, layout_of_file, take_description
from groundup.quantization.layouts.layout import Layout
from groundup.quantization.layouts.rowwise import in_rows, is_same, moves_rows
from groundup.quantization.linear import QuantizedLinear
from groundup.replace import put
from groundup.weights import Pair

if TYPE_CHECKING:
    from groundup.models.text.causal_lm import CausalLM


def load_model(
    path: str | Path, dtype: str | torch.dtype | None = None, device: str | torch.device | None = None
) -> "CausalLM":
    """Load a folder whose config.json has a `quantization_config`, or ChatGLM's `quantization_bit`, into a model in
    evaluation mode.

    Args:
        path: the folder.
        dtype: of what is not quantized; as stored when None.
        device: where all goes; the CPU when None.

    Raises:
        CheckpointError: an unknown method, names, shapes or settings that do not fit; nothing was allocated by then.
    """
    path = Path(path)
    values = read_config(path) | special_ids(path)
    described = take_description(values)
    wanted_dtype = None if dtype is None else choose_dtype(dtype)
    with ShardReader(path) as weights:
        with torch.device("meta"):
            config = config_from_hf(values)
            model = model_class(config)(config)
        place = Placing(model, wanted_dtype, choose_device(device or "cpu"))
        if described.get("quant_method") == OURS:
            _load_ours(place, described, weights)
        else:
            _load_theirs(place, layout_of_file(described), weights)
    model.tie_weights()
    model.name_or_path = str(path)
    return model.eval()


class Placing:
    """Puts tensors and layers into a model that has no memory yet.

    Args:
        model: on the meta device.
        dtype: of floating tensors, None for theirs.
        device: where they go.
    """

    def __init__(self, model: "CausalLM", dtype: torch.dtype | None, device: torch.device):
        self.model, self.dtype, self.device = model, dtype, device

    def tensor(self, name: str, tensor: Tensor) -> None:
        """A tensor that is not quantized, copied; a tied one is passed over."""
        if name == "lm_head.weight" and self.model.config.tie_word_embeddings:
            return
        weight = torch.empty(tensor.shape, dtype=stored_dtype(self.model, name, tensor, self.dtype), device=self.device)
        set_parameter(self.model, name, weight.copy_(tensor))

    def layer(self, name: str, layer: QuantizedLinear, mapped: bool = True) -> None:
        """A quantized layer in the place of a linear one, whose bias it takes over; copied if it lies in a file."""
        old = self.model.get_submodule(name)
        layer.bias = old.bias  # type: ignore[assignment]
        for leaf, buffer in layer._buffers.items():
            if buffer is not None:
                layer._buffers[leaf] = buffer.to(self.device, copy=mapped)
        put(self.model, name, layer)


# -- other libraries' layouts -----------------------------------------------------------------------------------------


def _load_theirs(place: Placing, layout: Layout, weights: Weights) -> None:
    model = place.model
    quantized, names = collect(layout, weights)
    pairs = type(model).weight_map(model.config).match_theirs(names)
    compare(model, _offered(pairs, quantized, weights), weights.path)
    kept, dtype = [], place.dtype or _main_dtype(weights, names, quantized)
    for pair in shown("loading", iter(pairs), len(pairs), weights.nbytes):
        modules = [module for module in _modules(pair) if module in quantized]
        stored = {
            module: {part: weights.get(name) for part, name in quantized[module].tensors.items()} for module in modules
        }
        if not stored:
            for name, tensor in zip(pair.ours, pair.operation.load([weights.get(n) for n in pair.theirs]), strict=True):
                place.tensor(name, tensor)
        elif not _as_layers(place, layout, pair, list(stored.values())):
            kept += [name.removesuffix(".weight") for name in pair.ours]
            _as_tensors(place, layout, pair, stored, weights, dtype)
    if kept:
        warn(
            f"{weights.path}: {len(kept)} layers have no quantized form here and are kept in precision: {kept[0]}, ..."
        )
    model.quantization = layout.config  # type: ignore[assignment]


def _modules(pair: Pair) -> list[str]:
    """Their names of the modules whose weights a pair holds."""
    return [name.removesuffix(".weight") for name in pair.theirs if name.endswith(".weight")]


def _offered(pairs: list[Pair], quantized: dict[str, "Quantized"], weights: Weights) -> Iterator[tuple[str, Tensor]]:
    """Our names and shapes of what a checkpoint holds; nothing is read."""
    for pair in pairs:
        mixed = any(module in quantized for module in _modules(pair))
        operation = in_rows(pair.operation) if mixed else pair.operation
        metas = [_meta(name, quantized, weights) for name in pair.theirs]
        try:
            yield from zip(pair.ours, operation.load(metas), strict=True)
        except RuntimeError as error:
            raise CheckpointError(f"{', '.join(pair.theirs)} does not give {', '.join(pair.ours)}: {error}") from None


class Quantized:
    """A quantized layer in a file. tensors: part -> full name; inner, out: its size."""

    def __init__(self, tensors: dict[str, str], inner: int, out: int):
        self.tensors, self.inner, self.out = tensors, inner, out


def collect(layout: Layout, weights: Weights) -> tuple[dict[str, Quantized], list[str]]:
    """The quantized layers of a checkpoint, and all names with each of them as one `.weight`.

    Raises:
        CheckpointError: a tensor of a layer is absent, or not of the shape that the settings tell.
    """
    names, all_names = weights.names(), set(weights.names())
    found: dict[str, Quantized] = {}
    taken: set[str] = set()
    for name in names:
        if not name.endswith("." + layout.mark):
            continue
        module = name.removesuffix("." + layout.mark)
        tensors = {part: f"{module}.{part}" for part in layout.parts if f"{module}.{part}" in all_names}
        found[module] = _checked(layout, module, tensors, weights)
        taken |= set(tensors.values())
    if not found:
        raise CheckpointError(
            f"{weights.path}: config.json tells of {layout.method}, but no tensor is a `{layout.mark}`"
        )
    return found, [*(f"{module}.weight" for module in found), *(name for name in names if name not in taken)]


def _checked(layout: Layout, module: str, tensors: dict[str, str], weights: Weights) -> Quantized:
    metas = {part: weights.meta(name) for part, name in tensors.items()}
    try:
        form = layout.form(metas, lambda part: weights.get(tensors[part]))
    except (UsageError, CheckpointError) as error:
        raise CheckpointError(f"{weights.path}: {module}: {error}") from None
    missing = [part for part, wanted in form.wanted.items() if part not in tensors and not wanted.optional]
    if missing:
        raise CheckpointError(f"{weights.path}: {module} lacks {', '.join(missing)}: the file is not whole")
    for part, meta in metas.items():
        wanted = form.wanted.get(part)
        if wanted is None or tuple(meta.shape) != wanted.shape or getattr(torch, meta.dtype) not in wanted.dtypes:
            settings = layout.config.model_dump(include={"bits", "group_size"})
            told = "nothing" if wanted is None else f"{wanted.shape} {str(wanted.dtypes[0]).removeprefix('torch.')}"
            raise CheckpointError(
                f"{weights.path}: {module}.{part} is {tuple(meta.shape)} {meta.dtype}, but {form.inner} inputs and "
                f"{form.out} outputs{f' with {settings}' if settings else ''} want {told}"
            )
    return Quantized(tensors, form.inner, form.out)


def _meta(name: str, quantized: dict[str, Quantized], weights: Weights) -> Tensor:
    layer = quantized.get(name.removesuffix(".weight")) if name.endswith(".weight") else None
    return meta_tensor(weights.meta(name)) if layer is None else torch.empty(layer.out, layer.inner, device="meta")


def _as_layers(place: Placing, layout: Layout, pair: Pair, stored: list[dict[str, Tensor]]) -> bool:
    """Place a pair as quantized layers; False where our side is no linear layers, or rows cannot be told apart."""
    names = [name.removesuffix(".weight") for name in pair.ours]
    operation = in_rows(pair.operation)
    if not all(name + ".weight" == ours for name, ours in zip(names, pair.ours, strict=True)):
        return False
    if any(type(place.model.get_submodule(name)) is not nn.Linear for name in names) or len(pair.theirs) > 1:
        return False
    if is_same(operation):
        place.layer(names[0], layout.layer(stored[0]))
        return True
    if not moves_rows(operation):
        return False
    try:
        rows = layout.rows(layout.layer(stored[0]))
        parts = {name: operation.load([tensor]) for name, tensor in rows.each.items()}
        layers = [
            layout.from_rows(type(rows)({name: part[i].contiguous() for name, part in parts.items()}, rows.shared))
            for i in range(len(names))
        ]
    except UsageError:
        return False
    for name, layer in zip(names, layers, strict=True):
        place.layer(name, layer)
    return True


def _main_dtype(weights: Weights, names: list[str], quantized: dict[str, Quantized]) -> torch.dtype:
    """The dtype of what is not quantized in a checkpoint."""
    plain = (name for name in names if name.removesuffix(".weight") not in quantized)
    dtypes = (getattr(torch, weights.meta(name).dtype) for name in plain)
    return next((dtype for dtype in dtypes if dtype.is_floating_point), torch.float16)


def _as_tensors(
    place: Placing, layout: Layout, pair: Pair, stored: dict[str, Any], weights: Weights, dtype: torch.dtype
) -> None:
    """Place a pair as plain tensors: what is quantized is multiplied out."""
    theirs = []
    for name in pair.theirs:
        module = name.removesuffix(".weight")
        theirs.append(layout.layer(stored[module]).dequantize().to(dtype) if module in stored else weights.get(name))
    for name, tensor in zip(pair.ours, in_rows(pair.operation).load(theirs), strict=True):
        place.tensor(name, tensor)


# -- our own layout ---------------------------------------------------------------------------------------------------


def _load_ours(place: Placing, described: dict[str, Any], weights: Weights) -> None:
    """Our names for all tensors, and a list of the quantized layers."""
    model, settings = place.model, dict(described)
    del settings["quant_method"]
    modules = settings.pop("modules", None)
    try:
        config: QuantizationConfig = TypeAdapter(AnyQuantization).validate_python(settings)
    except ValidationError as error:
        raise CheckpointError(f"{weights.path}: `quantization_config` is not understood: {error}") from None
    _make_room(model, config, modules, weights.path)
    compare(model, ((name, meta_tensor(weights.meta(name))) for name in weights.names()), weights.path)
    buffers = {name: buffer.dtype for name, buffer in model.named_buffers()}
    for name in modules:
        for leaf, buffer in model.get_submodule(name).named_buffers():
            stored = weights.meta(f"{name}.{leaf}").dtype
            if getattr(torch, stored) != buffer.dtype:
                raise CheckpointError(f"{weights.path}: {name}.{leaf} is {stored}, not {buffer.dtype}")
    within = tuple(f"{name}." for name in modules)
    for name in shown("loading", iter(weights.names()), len(buffers), weights.nbytes):
        tensor = weights.get(name)
        if name in buffers and name.startswith(within):
            set_parameter(model, name, tensor.to(place.device, copy=True))
        else:
            place.tensor(name, tensor)
    model.quantization = config  # type: ignore[assignment]


def _make_room(model: Any, config: QuantizationConfig, modules: Any, path: Path) -> None:
    """Put empty layers where the file has quantized ones; experts are named one by one (`...linears.0`)."""
    linear = {name for name, module in model.named_modules() if type(module) is nn.Linear}
    grouped = {name: module for name, module in model.named_modules() if type(module) is GroupedLinear}
    experts = {f"{name}.linears.{e}" for name, module in grouped.items() for e in range(len(module.weight))}
    if not isinstance(modules, list) or not set(modules) <= linear | experts:
        raise CheckpointError(f"{path}: `quantization_config.modules` must name linear layers of the model")
    with torch.device("meta"):
        for name, module in grouped.items():
            if f"{name}.linears.0" in modules:
                put(model, name, QuantizedExperts.empty(module, config))
        for name in linear & set(modules):
            old: Any = model.get_submodule(name)
            put(model, name, config.empty(old.in_features, old.out_features, old.bias is not None))
