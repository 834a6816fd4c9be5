"""A GGUF file as a model of ours.

As in `models.hub`, names and shapes are compared before anything is allocated, and tensors go one pair at a time.
Packed matrices of linear layers stay packed unless floats are asked for: rows that llama.cpp orders otherwise change
places as they are. Embeddings, and experts, which lie side by side in one tensor, become floats.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from groundup.base.device import choose_device, choose_dtype
from groundup.base.errors import CheckpointError
from groundup.base.gguf_container import GGUFFile, TensorInfo
from groundup.models.catalogue import model_class
from groundup.models.hub import compare, set_parameter, shown
from groundup.quantization.gguf.architectures import ROPE_FACTORS, architecture_in
from groundup.quantization.gguf.blocks import FLOATS, dequantize
from groundup.quantization.gguf.linear import GGUFLinear
from groundup.replace import put
from groundup.weights import Pair

if TYPE_CHECKING:
    from groundup.models.text.causal_lm import CausalLM


def load_model(
    path: str | Path, dtype: str | torch.dtype | None = None, device: str | torch.device | None = None
) -> "CausalLM":
    """The model in a GGUF file, in evaluation mode.

    Args:
        path: the file.
        dtype: of all weights, packed ones too; when None, packed linear layers stay packed, and the rest is as most of
            the file's float matrices are, float32 where there are packed ones.
        device: where they go; the CPU when None.

    Raises:
        CheckpointError: a damaged file, a kind of model that is not known here, names, shapes or a vocabulary that do
            not fit; nothing was allocated by then.
    """
    path = Path(path)
    wanted = None if dtype is None else choose_dtype(dtype)
    where = choose_device(device or "cpu")
    with GGUFFile(path) as file:
        architecture = architecture_in(file.metadata, str(path))
        shapes = {name: info.shape for name, info in file.tensors.items()}
        config = architecture.config(file.metadata, shapes, _factors(file))
        check_vocabulary(file, config.vocab_size)
        with torch.device("meta"):
            model = model_class(config)(config)
        weight_map = architecture.weight_map(config)
        compare(model, weight_map.load(shapes, lambda name: torch.empty(shapes[name], device="meta")), path)
        packed, floats = wanted is None, wanted or _float_type(file)
        nbytes = sum(info.nbytes for info in file.tensors.values())
        pairs = weight_map.match_theirs(shapes)
        for name, tensor in shown("loading", _tensors(model, file, pairs, packed), len(shapes), nbytes):
            if isinstance(tensor, GGUFLinear):
                tensor.packed = tensor.packed.to(where)
                put(model, name, tensor)
            else:
                kept = any(name.startswith(start) for start in model.float32)
                set_parameter(model, name, tensor.to(device=where, dtype=torch.float32 if kept else floats, copy=True))
    model.tie_weights()
    model.name_or_path = str(path)
    return model.eval()


def _tensors(model: "CausalLM", file: GGUFFile, pairs: list[Pair], packed: bool) -> Iterator[tuple[str, Any]]:
    """(name of a parameter, tensor), or (name of a module, packed layer)."""
    for pair in pairs:
        infos = [file.tensors[name] for name in pair.theirs]
        raw = [torch.from_numpy(file.raw(name).copy()) for name in pair.theirs]
        linear = all(_is_linear(model, name) for name in pair.ours)
        if packed and linear and len(infos) == 1 and infos[0].type.name not in FLOATS:
            for name, rows in zip(pair.ours, pair.operation.load(raw), strict=True):
                module = name.rpartition(".")[0]
                yield module, _layer(model.get_submodule(module), infos[0], rows.contiguous())
        else:
            given = [dequantized(rows, info) for rows, info in zip(raw, infos, strict=True)]
            yield from zip(pair.ours, pair.operation.load(given), strict=True)


def _is_linear(model: "CausalLM", name: str) -> bool:
    """Whether the tensor is the matrix of a plain linear layer that is not tied to the embedding."""
    module, _, leaf = name.rpartition(".")
    tied = module == "lm_head" and model.config.tie_word_embeddings
    return leaf == "weight" and not tied and type(model.get_submodule(module)) in (nn.Linear, GGUFLinear)


def _layer(old: Any, info: TensorInfo, rows: Tensor) -> GGUFLinear:
    """The packed layer in place of an empty one; a bias comes with a pair of its own, before or after."""
    new = GGUFLinear(old.in_features, old.out_features, info.type.name, device="meta")
    new.packed, new.bias = rows, old.bias
    return new


def dequantized(rows: Tensor, info: TensorInfo) -> Tensor:
    """A tensor in floats, in the type that it has in the file where that is one."""
    if info.type.name in FLOATS:
        return rows.view(FLOATS[info.type.name]).view(info.shape)
    return dequantize(rows, info.type).view(info.shape)


def _float_type(file: GGUFFile) -> torch.dtype:
    """float32 beside packed matrices; otherwise the type of most matrices."""
    kinds = [info.type.name for info in file.tensors.values() if len(info.shape) > 1]
    if not kinds or any(kind not in FLOATS for kind in kinds):
        return torch.float32
    return FLOATS[max(set(kinds), key=kinds.count)]


def _factors(file: GGUFFile) -> list[float] | None:
    """The divisors of the rotary frequencies, where there are any."""
    if ROPE_FACTORS not in file.tensors:
        return None
    info = file.tensors[ROPE_FACTORS]
    if info.type.name != "f32" or len(info.shape) != 1:
        raise CheckpointError(f"{file.path}: {ROPE_FACTORS} must be a list of float32 numbers")
    return dequantized(torch.from_numpy(file.raw(ROPE_FACTORS).copy()), info).tolist()


def check_vocabulary(file: GGUFFile, rows: int) -> None:
    """Refuse a tokenizer that has another number of tokens than the embedding has rows."""
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, list) and len(tokens) != rows:
        raise CheckpointError(
            f"{file.path}: the tokenizer has {len(tokens):,} tokens, the embedding {rows:,} rows: "
            "they do not belong together"
        )
