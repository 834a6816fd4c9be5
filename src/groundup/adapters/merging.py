"""Adapters into the weights and out again.

    W' = W + s B A        one matrix again: nothing is added to a forward pass any more

`merge` keeps the layer's own tensors beside the merged ones, so `unmerge` gives them back bit for bit; the targets take
twice their memory meanwhile. `merged` makes a plain model that keeps nothing.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from groundup.adapters.attach import adapters_of
from groundup.adapters.part import Adapted, base_weight, plain, weight_of
from groundup.base.console import progress
from groundup.base.errors import UsageError
from groundup.replace import put

MANY = 64
"""Layers from which on a progress bar is shown."""


def merge(model: nn.Module, *names: str, requantize: bool = False) -> None:
    """Let the weights take adapters in; what the model gives stays the same up to rounding.

    Args:
        model: changed in place, all of it or nothing.
        names: which; those that act when none is named.
        requantize: on quantized layers, merge into the dequantized matrix and round that again, which
            changes results by the rounding.

    Raises:
        UsageError: one of them does not act, cannot be merged, or would make weights that are not finite; or a layer is
            quantized and `requantize` is not set.
    """
    adapters = adapters_of(model)
    names = names or adapters.selection.names
    _check(model, names)
    layers = [m for m in model.modules() if isinstance(m, Adapted) and _here(m, names)]
    done: list[Any] = []
    try:
        for layer in progress(layers, label="merging", unit="layer") if len(layers) > MANY else layers:
            _merge_layer(model, layer, names, requantize)
            done.append(layer)
    except UsageError:
        for layer in done:
            _restore(layer, layer.merged[: len(layer.merged) - len(_here(layer, names))])
        raise


def unmerge(model: nn.Module) -> None:
    """Take every merged adapter out of the weights, which are bit for bit what they were."""
    for layer in model.modules():
        if isinstance(layer, Adapted) and layer.kept is not None:
            _restore(layer, ())


def merged(model: Any, *, requantize: bool = False) -> Any:
    """A model without adapters, whose weights have those in that act on this one; `save_pretrained` writes it.

    Tensors that no adapter touches are shared with `model`, which stays as it is.
    """
    adapters = adapters_of(model)
    names = [name for name in adapters.selection.names if name not in adapters.merged]
    own = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    for name in adapters.selection.names:  # the base holds this adapter's version now, and another may be swapped in
        known = dict(model.named_parameters())
        for tensor in adapters.plans[name].tensors:
            own[id(known[tensor])] = nn.Parameter(known[tensor].detach().clone())
    _check(model, tuple(names)) if names else None
    new = copy.deepcopy(model, own)
    new.__dict__.pop("adapters", None)
    for where, layer in list(new.named_modules()):
        if isinstance(layer, Adapted):
            acting = _here(layer, names)
            if acting:
                _merge_layer(new, layer, acting, requantize)
            put(new, where, plain(layer))
    for parameter in new.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    _untie(new)
    return new


def _untie(model: Any) -> None:
    """Where head and embedding were one matrix and an adapter changed one of them, they are two."""
    config, head = getattr(model, "config", None), getattr(model, "lm_head", None)
    if not getattr(config, "tie_word_embeddings", False) or not isinstance(head, nn.Linear):
        return
    if head.weight is not model.embed.tokens.weight:
        model.config = config.model_copy(update={"tie_word_embeddings": False})  # type: ignore[union-attr]


def _check(model: Any, names: tuple[str, ...]) -> None:
    adapters = adapters_of(model)
    if not names:
        raise UsageError("no adapter acts: name one, or activate it first")
    acting = [name for name in adapters.selection.names if name not in adapters.merged]
    for name in names:
        adapters.check_known(name)
        plan = adapters.plans[name]
        kind = getattr(adapters.configs[name], "kind", "")
        if name not in acting:
            why = "is merged already" if name in adapters.merged else "does not act: activate it first"
            raise UsageError(f"`{name}` {why}")
        if plan.prompt is not None or not all(part.can_merge for part in plan.parts.values()):
            raise UsageError(f"`{name}` ({kind}) is more than a change of matrices: weights cannot take it in")
    if len(names) < len(acting) and any(p.changes_input for name in names for p in adapters.plans[name].parts.values()):
        raise UsageError(f"`{names[0]}` changes what other adapters read: merge all that act")
    everything = [part for name in acting for part in adapters.plans[name].parts.values()]
    if list(names) != acting[: len(names)] and not all(part.additive for part in everything):
        raise UsageError(f"`{names[0]}` is not the first that acts, and not all of them only add: merge all")
    if adapters.selection.rows is not None:
        raise UsageError("adapters are chosen row by row now, and weights serve all rows: leave `for_rows` first")


def _here(layer: Any, names: Sequence[str]) -> tuple[str, ...]:
    """Those of the adapters that a layer's weights would take in."""
    return tuple(name for name in names if name in layer.adapters and not layer.adapters[name].only_trains)


def _merge_layer(model: Any, layer: Any, names: tuple[str, ...], requantize: bool) -> None:
    here = _here(layer, names)
    quantized = hasattr(layer, "dequantize")
    if quantized and not requantize:
        raise UsageError(
            f"{layer.where} is quantized: merged weights would have to be rounded again. Leave the adapter beside it, "
            "merge into the full weights, or say `requantize`"
        )
    with torch.no_grad():
        base, weight = base_weight(layer), weight_of(layer)
        dtype, turned = weight.dtype, isinstance(layer, nn.Embedding)
        weight = weight.T if turned else weight
        bias = getattr(layer, "bias", None)
        # what changes the input does so for every part: (W + B A) (l * x), in whatever order they act
        for part in sorted((layer.adapters[name] for name in here), key=lambda part: part.changes_input):
            weight = part.merged(weight, base)
            bias = None if bias is None else part.merged_bias(bias)
        weight = (weight.T if turned else weight).to(dtype).contiguous()
    if not weight.isfinite().all():
        raise UsageError(f"`{', '.join(here)}` would make weights of {layer.where} that are not finite: it is broken")
    kept = layer.kept if layer.kept is not None else {**layer._parameters, **layer._buffers}
    _put_weight(model, layer, weight)
    if bias is not None and bias is not layer.bias:
        layer._parameters["bias"] = nn.Parameter(bias.to(layer.bias.dtype), requires_grad=False)
    layer.kept, layer.merged = kept, (*layer.merged, *here)


def _put_weight(model: Any, layer: Any, weight: Tensor) -> None:
    if not hasattr(layer, "dequantize"):
        layer._parameters["weight"] = nn.Parameter(weight, requires_grad=False)
        return
    full = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    full.weight = nn.Parameter(weight, requires_grad=False)
    rounded = model.quantization.make(full)
    if {name: b.shape for name, b in rounded.named_buffers()} != {
        name: b.shape for name, b in plain(layer).named_buffers()
    }:
        raise UsageError(
            f"{layer.where} is stored in another form than {type(rounded).__name__} makes: merge elsewhere"
        )
    layer._buffers.update(rounded._buffers)


def _restore(layer: Any, still: tuple[str, ...]) -> None:
    """The layer's own tensors again, then with those in that are still merged."""
    for own in (layer._parameters, layer._buffers):
        own.update({name: layer.kept[name] for name in own if name in layer.kept})
    layer.kept, layer.merged = None, ()
    if still:
        _merge_layer(None, layer, still, requantize=False)
