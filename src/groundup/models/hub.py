"""From a model folder or hub name to a Model, and back.

Everything is compared before anything is allocated: the names and shapes that the checkpoint's header lists, taken
through the family's weight map, must be exactly those of the model. Then tensors are copied one pair at a time, so that
peak memory is the model plus one shard.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from groundup.base.device import choose_device, choose_dtype
from groundup.base.errors import CheckpointError
from groundup.base.folders import find_folder, read_config, write_model_folder
from groundup.base.shards import ShardReader, ShardWriter
from groundup.models.catalogue import config_from_hf, model_class
from groundup.models.configs.base import ModelConfig

SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")

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
    """Load a Hugging Face folder (or a built-in or hub name) into a model in evaluation mode.

    Args:
        path_or_name: local folder; a built-in name (`tiny`); or `org/name`, fetched from the hub.
        dtype: of the weights; as stored when None.
        device: where they go; the CPU when None, the best there is for "auto".

    Raises:
        CheckpointError: a family, key, tensor name or shape that does not fit, named; nothing was allocated by then.
    """
    folder = find_folder(path_or_name)
    config = config_from_hf(read_config(folder) | special_ids(folder))
    cls = model_class(config)
    with torch.device("meta"):
        model = cls(config)
    wanted_dtype = None if dtype is None else choose_dtype(dtype)
    wanted_device = choose_device(device or "cpu")

    weight_map = cls.weight_map(config)
    with ShardReader(folder) as reader:
        names = list(reader.names())
        compare(model, weight_map.load(names, lambda name: _meta_tensor(reader, name)), folder)
        for name, tensor in weight_map.load(names, reader.get):
            if _is_tied_copy(model, name):
                continue
            weight = torch.empty(tensor.shape, dtype=wanted_dtype or tensor.dtype, device=wanted_device)
            set_parameter(model, name, weight.copy_(tensor))
    model.tie_weights()
    return model.eval()


def special_ids(folder: Path) -> dict[str, Any]:
    """The begin, end and padding ids of generation_config.json, which count before config.json's; it may be absent."""
    if not (folder / "generation_config.json").exists():
        return {}
    values = read_config(folder, "generation_config.json")
    return {name: values[name] for name in SPECIAL_IDS if values.get(name) is not None}


def compare(model: "CausalLM", offered: Iterator[tuple[str, Tensor]], folder: Path) -> None:
    """Raise a short report unless the offered names and shapes are those of the model."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in offered}
    tied = {name for name in wanted if _is_tied_copy(model, name)}
    missing = [name for name in wanted if name not in given and name not in tied]
    unexpected = [name for name in given if name not in wanted]
    wrong = [name for name in given if name in wanted and given[name] != wanted[name]]
    if not (missing or unexpected or wrong):
        return
    lines = [f"{folder} does not hold a {model.config.family()} model of the shape its config.json tells:"]
    lines += [f"  missing ({len(missing)}): {', '.join(missing[:5])}"] * bool(missing)
    lines += [f"  unexpected ({len(unexpected)}): {', '.join(unexpected[:5])}"] * bool(unexpected)
    lines += [f"  {name}: stored {given[name]}, wanted {wanted[name]}" for name in wrong[:5]]
    raise CheckpointError("\n".join(lines))


def save_model(model: "CausalLM", folder: str | Path, max_shard_bytes: int = 5_000_000_000) -> None:
    """Write config.json, generation_config.json and safetensors that transformers loads; tensors go one at a time."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    own = {name: tensor for name, tensor in model.state_dict().items() if not _is_tied_copy(model, name)}
    weight_map = type(model).weight_map(model.config)
    with ShardWriter(folder, max_shard_bytes=max_shard_bytes) as writer:
        for name, tensor in weight_map.save(own, own.__getitem__):
            writer.add(name, tensor.detach().cpu())
    config = model.config.to_hf() | {"dtype": str(model.dtype).removeprefix("torch.")}
    special = {name: config[name] for name in SPECIAL_IDS if config.get(name) is not None}
    write_model_folder(folder, config, generation_config=special)


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


def _meta_tensor(reader: ShardReader, name: str) -> Tensor:
    meta = reader.meta(name)
    return torch.empty(meta.shape, dtype=getattr(torch, meta.dtype), device="meta")
