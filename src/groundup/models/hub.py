"""From a model folder, a file of weights or a hub name to a Model, and back.

Everything is compared before anything is allocated: the names and shapes that the checkpoint's header lists, taken
through the family's weight map, must be exactly those of the model. Then tensors are copied one pair at a time, so that
peak memory is the model plus one shard.
"""

import fnmatch
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from groundup.base.console import progress, warn
from groundup.base.device import choose_device, choose_dtype
from groundup.base.errors import CheckpointError, UsageError
from groundup.base.files import read_json
from groundup.base.folders import write_model_folder
from groundup.base.hf_config import INFINITY
from groundup.base.shards import ShardWriter
from groundup.models.catalogue import model_class
from groundup.models.configs.base import ModelConfig
from groundup.models.formats.formats import SPECIAL_IDS, find_format, find_weights
from groundup.models.formats.reader import meta_tensor

LARGE_BYTES = 10**9

ELSEWHERE = {
    "an adapter": "groundup.adapters.loading",
    "quantized": "groundup.quantization.loading",
    "GGUF": "groundup.quantization.gguf.loading",
}
"""Forms that rooms above this one know: what they are -> the module whose `load_model(path, dtype, device)` reads them.
Named as text, because a model need not know what can be put on it."""
SAVING = {"quantized": "groundup.quantization.saving"}
"""The same for writing: what a model is -> the module whose `save_model(model, folder, max_shard_bytes)` writes it."""

T = TypeVar("T")

if TYPE_CHECKING:
    from groundup.models.text.causal_lm import CausalLM


def build_model(
    config: ModelConfig, *, dtype: str | torch.dtype | None = None, device: str | torch.device | None = None
) -> "CausalLM":
    """A new model with initial weights, drawn in float32 from torch's generator; `dtype` float32 when None."""
    with torch.device(choose_device(device or "cpu")):
        model = model_class(config).build(config)
    return model if dtype is None else model.to(choose_dtype(dtype))


def load_model(
    path_or_name: str | Path, dtype: str | torch.dtype | None = None, device: str | torch.device | None = None
) -> "CausalLM":
    """Load a model folder, in whatever form its weights are (`formats`), into a model in evaluation mode.

    Args:
        path_or_name: local folder, or file of weights; a built-in name (`tiny`); or `org/name`, fetched from the hub.
        dtype: of the weights; as stored when None.
        device: where they go; the CPU when None, the best there is for "auto".

    Raises:
        CheckpointError: a family, key, tensor name or shape that does not fit, named; nothing was allocated by then.
    """
    elsewhere = loader_elsewhere(Path(path_or_name).expanduser())
    if elsewhere is not None:
        return elsewhere(Path(path_or_name).expanduser(), dtype, device)
    path = find_weights(path_or_name)
    wanted_dtype = None if dtype is None else choose_dtype(dtype)
    wanted_device = choose_device(device or "cpu")
    form = find_format(path)
    with form.open(path) as weights:
        config = form.config(weights)
        with torch.device("meta"):
            model = model_class(config)(config)
        weight_map, names = form.weight_map(config), weights.names()
        if notes := weight_map.notes(names):
            warn(f"{path}: loaded without {' and '.join(notes)}, which have no place in this family")
        compare(model, weight_map.load(names, lambda name: meta_tensor(weights.meta(name))), path)
        for name, tensor in shown("loading", weight_map.load(names, weights.get), len(names), weights.nbytes):
            if _is_tied_copy(model, name):
                continue
            dtype_here = stored_dtype(model, name, tensor, wanted_dtype)
            weight = torch.empty(tensor.shape, dtype=dtype_here, device=wanted_device)
            set_parameter(model, name, weight.copy_(tensor))
    model.tie_weights()
    model.name_or_path = str(path_or_name)
    return model.eval()


def stored_dtype(model: "CausalLM", name: str, tensor: Tensor, wanted: torch.dtype | None) -> torch.dtype:
    """The dtype in which a tensor of a checkpoint goes into the model; `wanted` None for its own."""
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in model.float32):
        wanted = torch.float32
    return wanted if wanted is not None and tensor.is_floating_point() else tensor.dtype


def loader_elsewhere(path: Path) -> Callable[..., "CausalLM"] | None:
    """What loads an adapter's folder, a folder of quantized weights, or a GGUF file; None for all else."""
    kind = None
    if path.suffix == ".gguf" and path.is_file():
        kind = "GGUF"
    elif (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        kind = "an adapter"
    elif (path / "config.json").is_file():
        values = read_json(path / "config.json", infinity=INFINITY)
        described = values.get("quantization_config") if isinstance(values, dict) else None
        method = described.get("quant_method") if isinstance(described, dict) else None
        glm = isinstance(values, dict) and values.get("model_type") == "chatglm" and values.get("quantization_bit")
        kind = "quantized" if method not in (None, "mxfp4") or glm else None
    return importlib.import_module(ELSEWHERE[kind]).load_model if kind else None


def shown(label: str, pairs: Iterator[T], count: int, nbytes: int) -> Iterable[T]:
    """With a progress bar where it takes long enough to wonder."""
    return progress(pairs, total=count, label=label, unit="tensor") if nbytes > LARGE_BYTES else pairs


def compare(model: "CausalLM", offered: Iterator[tuple[str, Tensor]], folder: Path) -> None:
    """Raise a short report unless the offered names and shapes are those of the model."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in offered}
    wanted = {name: shape for name, shape in wanted.items() if name in given or not _is_tied_copy(model, name)}
    if lines := mismatches(wanted, given):
        head = f"{folder} does not hold a {model.config.family()} model of the shape that its config tells:"
        raise CheckpointError("\n".join([head, *lines]))


def mismatches(wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> list[str]:
    """What differs between two sets of names and shapes, a line each: missing, unexpected, of another shape."""
    missing = [name for name in wanted if name not in given]
    unexpected = [name for name in given if name not in wanted]
    wrong = [name for name in given if name in wanted and given[name] != wanted[name]]
    lines = [f"  missing ({len(missing)}): {', '.join(missing[:5])}"] * bool(missing)
    lines += [f"  unexpected ({len(unexpected)}): {', '.join(unexpected[:5])}"] * bool(unexpected)
    return lines + [f"  {name}: stored {given[name]}, wanted {wanted[name]}" for name in wrong[:5]]


def save_model(model: "CausalLM", folder: str | Path, max_shard_bytes: int = 5_000_000_000) -> None:
    """Write config.json, generation_config.json and safetensors that transformers loads; tensors go one at a time."""
    if any(".adapters." in name or name.startswith("prompt.") for name, _ in model.named_parameters()):
        raise UsageError(
            "adapters stand on this model: merge them (`groundup merge`, `merged(model)`), or write one by itself with "
            "`save_adapter`"
        )
    quantization = getattr(model, "quantization", None)
    if quantization is not None and quantization.frozen:
        importlib.import_module(SAVING["quantized"]).save_model(model, folder, max_shard_bytes)
        return
    folder = Path(folder)
    own, get = weights_to_save(model)
    weight_map = type(model).weight_map(model.config)
    folder.mkdir(parents=True, exist_ok=True)
    with ShardWriter(folder, max_shard_bytes=max_shard_bytes) as writer:
        nbytes = sum(tensor.nbytes for tensor in model.state_dict().values())
        for name, tensor in shown("writing", weight_map.save(own, get), len(own), nbytes):
            writer.add(name, tensor.detach().cpu())
    write_config(model, folder)


def write_config(model: "CausalLM", folder: Path, **more: Any) -> None:
    """Write config.json, with `more` in it, and generation_config.json."""
    config = model.config.to_hf() | {"dtype": str(model.dtype).removeprefix("torch.")} | more
    special = {name: config[name] for name in SPECIAL_IDS if config.get(name) is not None}
    write_model_folder(folder, config, generation_config=special)


def weights_to_save(model: "CausalLM") -> tuple[list[str], Callable[[str], Tensor]]:
    """The names of a model's tensors, and what gives one of them.

    A layer that stores its matrix in fewer bits has its `weight` in floats here, made when it is asked for.
    """
    own = {name: tensor for name, tensor in _plain_state(model).items() if not _is_tied_copy(model, name)}
    packed = {name: module for name, module in model.named_modules() if hasattr(module, "dequantize")}
    stored = {f"{name}.{buffer}" for name, module in packed.items() for buffer, _ in module.named_buffers()}
    made: dict[str, Any] = {f"{name}.weight": module for name, module in packed.items()}

    def get(name: str) -> Tensor:
        return made[name].dequantize().to(model.dtype) if name in made else own[name]

    return [*(name for name in own if name not in stored), *made], get


def _plain_state(model: "CausalLM") -> dict[str, Tensor]:
    """The model's tensors; a layer that has its own idea of a plain form (`plain_state`) gives that."""
    tensors = model.state_dict()
    for path, module in model.named_modules():
        if hasattr(module, "plain_state"):
            tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(path + ".")}
            tensors |= {f"{path}.{name}": tensor for name, tensor in module.plain_state().items()}  # type: ignore[operator]
    return tensors


def set_parameter(model: nn.Module, name: str, weight: Tensor) -> None:
    """Put a tensor in the place of a parameter or buffer, by dotted name."""
    parent, _, leaf = name.rpartition(".")
    module = model.get_submodule(parent)
    if leaf in module._parameters:
        module._parameters[leaf] = nn.Parameter(weight, requires_grad=weight.is_floating_point())
    else:
        module._buffers[leaf] = weight


def _is_tied_copy(model: "CausalLM", name: str) -> bool:
    """Whether the name is the head of a model whose head is its embedding: stored once, under the embedding."""
    return name == "lm_head.weight" and model.config.tie_word_embeddings
