"""Quantize while reading: each matrix is read, rounded and dropped, so the whole model is never in memory as it was.

model = load_quantized("big-model", NF4Config())      # QLoRA on what would not fit otherwise
quantize_folder("big-model", "big-model-int8", Int8Config())
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from groundup.base.device import choose_device, choose_dtype
from groundup.base.errors import UsageError
from groundup.layers.moe.experts import GroupedLinear
from groundup.models.catalogue import model_class
from groundup.models.formats.formats import find_format, find_weights
from groundup.models.formats.reader import meta_tensor
from groundup.models.hub import compare, loader_elsewhere, shown
from groundup.quantization.config import QuantizationConfig
from groundup.quantization.exchange import check, layers_to_quantize
from groundup.quantization.experts import QuantizedExperts
from groundup.quantization.loading import Placing
from groundup.replace import put

if TYPE_CHECKING:
    from groundup.models.text.causal_lm import CausalLM


def load_quantized(
    path: str | Path,
    config: QuantizationConfig,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
) -> "CausalLM":
    """Load a model with its matrices in fewer bits, in evaluation mode.

    Memory is that of the quantized model, and for a moment of one matrix as it is stored and in float32.

    Args:
        path: a folder, file or name as for `models.hub.load_model`.
        config: a method that looks at the weights alone.
        dtype: of what is not quantized; as stored when None.
        device: where all goes; the CPU when None.

    Raises:
        UsageError: the method needs texts, nothing matches, or sizes do not fit it.
        CheckpointError: as for `models.hub.load_model`; nothing was allocated by then.
    """
    if config.calibrated:
        raise UsageError(
            f"{config.kind} looks at what flows through the whole model: load it, then quantize(model, config, ids)"  # type: ignore[attr-defined]
        )
    if loader_elsewhere(Path(path).expanduser()) is not None:
        raise UsageError(f"{path} is no plain checkpoint: only weights that are not quantized yet can be quantized")
    found = find_weights(path)
    form = find_format(found)
    with form.open(found) as weights:
        shape = form.config(weights)
        with torch.device("meta"):
            model = model_class(shape)(shape)
        weight_map, names = form.weight_map(shape), weights.names()
        compare(model, weight_map.load(names, lambda name: meta_tensor(weights.meta(name))), found)
        layers = layers_to_quantize(model, config)
        check(layers, config)
        place = Placing(model, None if dtype is None else choose_dtype(dtype), choose_device(device or "cpu"))
        for name, tensor in shown("loading", weight_map.load(names, weights.get), len(names), weights.nbytes):
            module = name.removesuffix(".weight")
            if name.endswith(".weight") and isinstance(layers.get(module), GroupedLinear):
                each = [config.make(_linear(matrix)) for matrix in tensor.to(place.device)]
                put(model, module, QuantizedExperts(each, layers[module].bias))  # type: ignore[arg-type]
            elif name.endswith(".weight") and module in layers:
                place.layer(module, config.make(_linear(tensor.to(place.device))), mapped=False)
            else:
                place.tensor(name, tensor)
    model.tie_weights()
    model.quantization = config  # type: ignore[assignment]
    model.name_or_path = str(path)
    return model.eval()


def quantize_folder(path: str | Path, out: str | Path, config: QuantizationConfig) -> None:
    """Write a quantized model from a folder of weights, which is never in memory as it was.

    Raises:
        UsageError, CheckpointError: as for `load_quantized`.
    """
    load_quantized(path, config).save_pretrained(out)


def _linear(weight: Tensor) -> nn.Linear:
    """A linear layer of a matrix (out, in), which is not copied."""
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer
