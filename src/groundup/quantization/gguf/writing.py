"""A model and its tokenizer as a GGUF file.

Matrices are stored in the type that is asked for, where rows are whole blocks of it; vectors, gates of experts and
learned positions stay float32, as llama.cpp wants them. `q4_k` is the mixture that llama.cpp calls Q4_K_M: values and
the last projection of the MLP are q6_K in half of the layers, and so is the head.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from groundup.base.console import as_size, progress, warn
from groundup.base.errors import UsageError, did_you_mean
from groundup.base.files import atomic_file
from groundup.base.gguf_container import TENSOR_TYPES, NewTensor, TensorType, write_gguf
from groundup.models.hub import weights_to_save
from groundup.quantization.gguf.architectures import Architecture, architecture_of
from groundup.quantization.gguf.blocks import quantize

if TYPE_CHECKING:
    from groundup.models.text.causal_lm import CausalLM
    from groundup.tokenizers.tokenizer import Tokenizer

TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_k")
FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7, "q4_k": 15, "bf16": 32}
"""llama.cpp's numbers for what most of a file is."""
FULL = ("ffn_gate_inp.weight", "position_embd.weight")
"""Matrices that stay float32."""


@dataclass
class Written:
    """What a file holds.

    Attributes:
        path: the file.
        tensors: name -> its type.
        weights, nbytes: numbers, and the bytes of them; `size`: bytes of the file.
    """

    path: Path
    tensors: dict[str, str]
    weights: int
    nbytes: int
    size: int = 0
    larger: dict[str, str] = field(default_factory=dict)
    """Matrices whose rows are no whole blocks -> the type that they have in place of the one that was asked for."""

    @property
    def bits_per_weight(self) -> float:
        """Bits a number, scales included."""
        return 8 * self.nbytes / self.weights

    def __str__(self) -> str:
        counts = {kind: list(self.tensors.values()).count(kind) for kind in sorted(set(self.tensors.values()))}
        told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        return f"{len(self.tensors)} tensors ({told}): {as_size(self.size)}, {self.bits_per_weight:.2f} bits a weight"


def save_gguf(
    model: "CausalLM", path: str | Path, kind: str = "q8_0", tokenizer: "Tokenizer | None" = None, name: str = ""
) -> Written:
    """Write a model as a GGUF file, whole or not at all.

    Args:
        model: of a family that llama.cpp knows (`architectures.BY_FAMILY`); adapters must be merged.
        path: the file.
        kind: one of `TYPES`.
        tokenizer: goes into the file, with its chat template; without one llama.cpp takes and gives ids alone.
        name: of the model, for people.

    Raises:
        UsageError: a family, setting or tokenizer that llama.cpp does not know, or another type; nothing is written.
        CheckpointError: the tokenizer has more ids than the model.
    """
    from groundup.tokenizers.formats.gguf import to_metadata

    if kind not in TYPES:
        raise UsageError(f"`{kind}` is no type of a GGUF file.{did_you_mean(kind, TYPES)} Known: {', '.join(TYPES)}")
    architecture = architecture_of(model.config)
    if getattr(model, "adapters", None):
        raise UsageError("the model has adapters on it, and a GGUF file holds a model alone: merge them first")
    metadata = {
        "general.architecture": architecture.name,
        "general.type": "model",
        "general.file_type": FILE_TYPES[kind],
        "general.quantization_version": 2,
        **architecture.metadata(model.config),
    }
    if name and not _misleading(name, tokenizer):
        metadata["general.name"] = name
    if tokenizer is None:
        metadata["tokenizer.ggml.model"] = "no_vocab"
    else:
        metadata |= to_metadata(tokenizer, model.config.vocab_size)
    context = architecture.context(model.config)
    if context < model.config.max_position_embeddings:
        warn(
            f"llama.cpp has no window for {model.config.family()}: the file says that {context} tokens are the context"
        )
    tensors, larger = plan(model, architecture, kind)
    sizes = {name: int(np.prod(tensor.shape)) for name, tensor in tensors.items()}
    written = Written(
        Path(path),
        {name: tensor.type.name for name, tensor in tensors.items()},
        sum(sizes.values()),
        sum(sizes[name] // tensor.type.block * tensor.type.nbytes for name, tensor in tensors.items()),
        larger=larger,
    )
    bar = progress(total=len(tensors), label="packing", unit="tensor")
    with bar, atomic_file(path) as temporary:
        write_gguf(temporary, metadata, {name: _counted(tensor, bar) for name, tensor in tensors.items()})
        written.size = temporary.stat().st_size
    return written


def _misleading(name: str, tokenizer: "Tokenizer | None") -> bool:
    """Whether llama.cpp would look for Phi-3's own tokens because of the name, and not find them."""
    phi = any(word in name.lower() for word in ("phi-3", "phi3"))
    return phi and (tokenizer is None or "<|endoftext|>" not in tokenizer.vocab)


def plan(model: "CausalLM", architecture: Architecture, kind: str) -> tuple[dict[str, NewTensor], dict[str, str]]:
    """Every tensor with its type, to be made when its turn comes; and those that get a larger type than asked for."""
    weight_map = architecture.weight_map(model.config)
    names, get = weights_to_save(model)
    shapes = weight_map.save(names, lambda name: torch.empty(_shape(model, name), device="meta"))
    streamed = weight_map.save(names, get)
    tensors, larger = {}, {}
    for name, tensor in architecture.extra(model.config).items():
        tensors[name] = NewTensor(TENSOR_TYPES["f32"], tuple(tensor.shape), lambda tensor=tensor: _bytes(tensor, "f32"))
    for name, meta in shapes:
        wanted = type_of(name, meta.shape, kind, model.config)
        found = fitting(meta.shape[-1], wanted)
        if found != wanted:
            larger[name] = found
        made = TENSOR_TYPES[found]
        tensors[name] = NewTensor(made, tuple(meta.shape), lambda name=name, made=made: _next(streamed, name, made))
    return tensors, larger


def type_of(name: str, shape: Any, kind: str, config: Any) -> str:
    """The type that a tensor is to have, if its rows allow it."""
    if len(shape) == 1 or name.endswith(FULL):
        return "f32"
    if kind != "q4_k":
        return kind
    if name in ("token_embd.weight", "output.weight"):
        return "q6_k" if name.startswith("output") or config.tie_word_embeddings else "q4_k"
    if name.endswith(("attn_v.weight", "ffn_down.weight", "ffn_down_exps.weight")):
        return "q6_k" if more_bits(int(name.split(".")[1]), config.num_hidden_layers) else "q4_k"
    return kind


def more_bits(layer: int, layers: int) -> bool:
    """Whether a layer is one of those that matter more: the first and last eighth, and every third between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def fitting(width: int, kind: str) -> str:
    """The type, or the next larger one whose blocks fill rows of this width: q8_0, or f16."""
    return next(name for name in (kind, "q8_0", "f16") if width % TENSOR_TYPES[name].block == 0)


def _shape(model: "CausalLM", name: str) -> tuple[int, ...]:
    """Of a tensor as it would be in floats."""
    module, _, leaf = name.rpartition(".")
    owner = model.get_submodule(module)
    if leaf == "weight" and hasattr(owner, "dequantize"):
        return owner.out_features, owner.in_features  # type: ignore[return-value]
    return tuple(getattr(owner, leaf).shape)


def _next(streamed: Iterator[tuple[str, Tensor]], name: str, kind: TensorType) -> np.ndarray:
    found, tensor = next(streamed)
    assert found == name
    return _bytes(tensor, kind.name)


def _bytes(tensor: Tensor, kind: str) -> np.ndarray:
    return quantize(tensor.detach(), kind).cpu().numpy()


def _counted(tensor: NewTensor, bar: Any) -> NewTensor:
    def data() -> np.ndarray:
        made = tensor.data()
        bar.update()
        return made

    return tensor._replace(data=data)
