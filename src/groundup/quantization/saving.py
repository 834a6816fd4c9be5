"""From a quantized model to a folder: in the layout of GPTQ, AWQ, bitsandbytes or ChatGLM, or else in our own.

Ours, which models with quantized experts have too: every tensor under our name, and in config.json's
`quantization_config` the method's settings and the names of the quantized layers.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from groundup.base.errors import UsageError
from groundup.base.shards import ShardWriter
from groundup.models.hub import shown, write_config
from groundup.quantization.config import QuantizationConfig
from groundup.quantization.experts import QuantizedExperts
from groundup.quantization.layouts.known import OURS, layout_for
from groundup.quantization.layouts.layout import Layout
from groundup.quantization.layouts.rowwise import in_rows, is_same, moves_rows
from groundup.quantization.linear import QuantizedLinear
from groundup.weights import Pair

if TYPE_CHECKING:
    from groundup.models.text.causal_lm import CausalLM


def save_model(model: "CausalLM", folder: str | Path, max_shard_bytes: int = 5_000_000_000) -> None:
    """Write config.json, generation_config.json and safetensors; tensors go one at a time.

    Raises:
        UsageError: layers of several methods, or layers that the layout holds in one tensor and of which only some are
            quantized, or whose rows it cannot join; nothing was written by then.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, QuantizedLinear)}
    config = the_method(model, layers)
    experts = any(isinstance(module, QuantizedExperts) for module in model.modules())
    layout = None if experts else layout_for(config, model.config.to_hf()["model_type"])
    if layout is None:
        own = plain_tensors(model)
        described = {"quant_method": OURS, **config.model_dump(), "modules": list(layers)}
        pairs, told = iter(own.items()), {"quantization_config": described}
        count = len(own)
    else:
        planned, unchanged = plan(model, layers, layout)
        pairs, told = _theirs(planned, model, layers, layout), layout.in_config(unchanged)
        count = len(planned)
    with ShardWriter(folder, max_shard_bytes=max_shard_bytes) as writer:
        nbytes = sum(tensor.nbytes for tensor in model.state_dict().values())
        for name, tensor in shown("writing", pairs, count, nbytes):
            writer.add(name, tensor.detach().cpu())
    write_config(model, Path(folder), **told)


def the_method(model: Any, layers: dict[str, QuantizedLinear]) -> QuantizationConfig:
    """The settings that all quantized layers of a model have."""
    config: QuantizationConfig = model.quantization
    with torch.device("meta"):
        first = next(iter(layers.values()))
        kind = type(config.empty(first.in_features, first.out_features, bias=False))
    other = [name for name, layer in layers.items() if not isinstance(layer, kind)]
    if other:
        raise UsageError(
            f"the model has layers of several methods: {other[0]} is no {kind.__name__}. One folder holds one method"
        )
    return config


def plain_tensors(model: "CausalLM") -> dict[str, Tensor]:
    """The tensors of a model under our names, a tied head left out."""
    tied = model.config.tie_word_embeddings
    return {name: tensor for name, tensor in model.state_dict().items() if not (tied and name == "lm_head.weight")}


def plan(
    model: "CausalLM", layers: dict[str, QuantizedLinear], layout: Layout
) -> tuple[list[tuple[Pair, bool]], list[str]]:
    """The pairs to write, each with whether it is quantized, and their names of linear layers that are not."""
    within = tuple(f"{name}.{leaf}" for name, layer in layers.items() for leaf, _ in layer.named_buffers(recurse=False))
    names = [name for name in plain_tensors(model) if name not in set(within)] + [f"{name}.weight" for name in layers]
    planned: list[tuple[Pair, bool]] = []
    unchanged: list[str] = []
    for pair in type(model).weight_map(model.config).match_ours(names):
        modules = [name.removesuffix(".weight") if name.endswith(".weight") else "" for name in pair.ours]
        count = sum(module in layers for module in modules)
        if 0 < count < len(modules) or (count and not moves_rows(in_rows(pair.operation))):
            raise UsageError(
                f"{layout.method} files hold {', '.join(modules)} in one tensor, {pair.theirs[0]}: quantize all of "
                "them or none (`targets`, `skip`)"
            )
        if count and not is_same(in_rows(pair.operation)):
            for module in modules:
                _check_rows(module, layers[module], layout)
        linear = [module for module in modules if module and type(model.get_submodule(module)) is nn.Linear]
        unchanged += [name.removesuffix(".weight") for name in pair.theirs if linear and name.endswith(".weight")]
        planned.append((pair, bool(count)))
    if model.config.tie_word_embeddings:  # no tensor of its own, and a layer none the less
        (head,) = type(model).weight_map(model.config).match_ours(["lm_head.weight"])
        unchanged += [name.removesuffix(".weight") for name in head.theirs]
    return planned, unchanged


def _check_rows(name: str, layer: QuantizedLinear, layout: Layout) -> None:
    try:
        layout.check_rows(layer)
    except UsageError as error:
        raise UsageError(f"{layout.method} files hold {name} with others in one tensor: {error}; `skip` it") from None


def _theirs(
    planned: list[tuple[Pair, bool]], model: "CausalLM", layers: dict[str, QuantizedLinear], layout: Layout
) -> Iterator[tuple[str, Tensor]]:
    own = model.state_dict()
    for pair, quantized in planned:
        if not quantized:
            tensors = pair.operation.save([own[name] for name in pair.ours])
            yield from ((name, tensor.contiguous()) for name, tensor in zip(pair.theirs, tensors, strict=True))
            continue
        here = [layers[name.removesuffix(".weight")] for name in pair.ours]
        layer = here[0] if is_same(in_rows(pair.operation)) else _joined(pair, here, layout)
        module = pair.theirs[0].removesuffix(".weight")
        for part, tensor in layout.stored(layer).items():
            yield f"{module}.{part}", tensor.contiguous()


def _joined(pair: Pair, layers: list[QuantizedLinear], layout: Layout) -> QuantizedLinear:
    """Several layers as the one that the file holds."""
    rows = [layout.rows(layer) for layer in layers]
    for name, value in rows[0].shared.items():
        if not all(torch.equal(torch.as_tensor(each.shared[name]), torch.as_tensor(value)) for each in rows):
            raise UsageError(f"{', '.join(pair.ours)} go into one tensor, and their {name} are not the same")
    operation = in_rows(pair.operation)
    each = {name: operation.save([part.each[name] for part in rows])[0] for name in rows[0].each}
    return layout.from_rows(type(rows[0])(each, rows[0].shared))
