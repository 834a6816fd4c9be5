"""Llama as Meta publishes it (Touvron et al. 2023): params.json and consolidated.00.pth, consolidated.01.pth, ...

Each file is one rank of a model-parallel group and holds a part of every matrix, cut along one dimension; norms are
whole in each. Queries and keys are stored for interleaved rotary positions (`layers.rope`). params.json does not tell
the width of the MLP, which follows from a rule, and leaves the vocabulary to the tensors (Llama 1 and 2 say -1).
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.base.errors import CheckpointError, did_you_mean
from groundup.base.files import read_json, safe_join
from groundup.base.hf_config import check_sizes
from groundup.base.safetensors_header import TensorMeta
from groundup.base.shards import hub_blobs
from groundup.layers.rope import half_split_to_interleaved, interleaved_to_half_split
from groundup.models.configs.llama import LlamaConfig
from groundup.models.formats.reader import Reader
from groundup.models.formats.torch_file import TorchFile
from groundup.weights import Mapped, WeightMap, rule

PARAMS, SHARD = "params.json", re.compile(r"consolidated\.(\d+)\.pth")

# Along which dimension a matrix is cut: 0 where its outputs are shared out, 1 where its inputs are.
CUT = {"wq": 0, "wk": 0, "wv": 0, "wo": 1, "w1": 0, "w2": 1, "w3": 0, "output": 0}

ROUNDED, IGNORED = ("multiple_of", "ffn_dim_multiplier"), ("max_batch_size",)
KEYS = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "vocab_size": "vocab_size",
    "norm_eps": "rms_norm_eps",
    "max_seq_len": "max_position_embeddings",
}
ROPE_KEYS = ("rope_theta", "use_scaled_rope", "rope_scaling_factor")


class MetaLlamaWeights(Reader):
    """The tensors of such a folder under Meta's names, the parts of the ranks joined one tensor at a time."""

    def __init__(self, folder: str | Path):
        super().__init__(Path(folder))
        self._parts = [TorchFile(file) for file in rank_files(self.path)]
        names = self._parts[0].names()
        for part in self._parts[1:]:
            if different := sorted(part.metas.keys() ^ set(names)):
                raise CheckpointError(
                    f"{part.path}: it and {self._parts[0].path.name} do not both hold {different[0]!r}"
                )
        self._width = _width(self._parts[0])
        self.metas = {name: self._joined_meta(name) for name in names}

    def get(self, name: str) -> Tensor:
        """The whole tensor, on the CPU: a view of the file where there is one file, a new tensor otherwise."""
        self._known(name)
        tensors = [part.get(name) for part in self._parts]
        cut = self._cut(name)
        if cut is not None:
            return torch.cat(tensors, dim=cut) if len(tensors) > 1 else tensors[0]
        if any(not torch.equal(tensor, tensors[0]) for tensor in tensors[1:]):
            raise CheckpointError(f"{self.path}: {name} should be the same in every file, and is not")
        return tensors[0]

    @property
    def files(self) -> list[Path]:
        """One file a rank."""
        return [part.path for part in self._parts]

    def close(self) -> None:
        """Let go of the mapped files."""
        for part in self._parts:
            part.close()

    def _joined_meta(self, name: str) -> TensorMeta:
        metas = [part.meta(name) for part in self._parts]
        cut, first = self._cut(name), metas[0]
        if cut is not None and len(first.shape) != 2:
            raise CheckpointError(f"{self.path}: {name} should be a matrix, its shape is {first.shape}")
        if any((meta.shape, meta.dtype) != (first.shape, first.dtype) for meta in metas):
            raise CheckpointError(f"{self.path}: the parts of {name} have different shapes or dtypes")
        if cut is None:
            return first
        shape = tuple(size * len(metas) if i == cut else size for i, size in enumerate(first.shape))
        return TensorMeta(first.dtype, shape, first.nbytes * len(metas), first.start)

    def _cut(self, name: str) -> int | None:
        module = name.split(".")[-2] if "." in name else name
        if module == "tok_embeddings":  # by width in Llama 1 and 2, by vocabulary in Llama 3
            return 0 if self._parts[0].meta(name).shape[-1:] == (self._width,) else 1
        return CUT.get(module)


def _width(part: TorchFile) -> int:
    if "norm.weight" not in part or len(part.meta("norm.weight").shape) != 1:
        raise CheckpointError(f"{part.path} holds no `norm.weight`, so it is no Llama of Meta's")
    return part.meta("norm.weight").shape[0]


def rank_files(folder: Path) -> list[Path]:
    """consolidated.00.pth, consolidated.01.pth, ...: all of them, in order."""
    found = {int(m[1]): path.name for path in folder.iterdir() if (m := SHARD.fullmatch(path.name))}
    if sorted(found) != list(range(len(found))) or not found:
        raise CheckpointError(f"{folder} lacks some of its files: found {', '.join(sorted(found.values())) or 'none'}")
    return [safe_join(folder, found[rank], also=linked(folder)) for rank in sorted(found)]


def linked(folder: Path) -> Path | None:
    """Where the links of a hub cache folder, or of `original/` in one, may lead."""
    return hub_blobs(folder) or hub_blobs(folder.resolve().parent)


def is_meta_llama(folder: Path) -> bool:
    """Whether a folder looks like one of Meta's."""
    return (folder / PARAMS).is_file() and any(SHARD.fullmatch(path.name) for path in folder.iterdir())


def config_of(weights: Any) -> LlamaConfig:
    """The shape of the model, from params.json and, for the vocabulary and tied heads, the tensors."""
    where = weights.path / PARAMS
    params = read_json(safe_join(weights.path, PARAMS, also=linked(weights.path)))
    if not isinstance(params, dict):
        raise CheckpointError(f"{where} must hold an object, found {type(params).__name__}")
    known = [*KEYS, *ROUNDED, *ROPE_KEYS, *IGNORED]
    if unknown := [key for key in params if key not in known]:
        raise CheckpointError(
            f"{where} has keys that are not understood here: {', '.join(unknown)}.{did_you_mean(unknown[0], known)} "
            "They might change what the model computes, so it is not loaded."
        )
    values = {ours: params[theirs] for theirs, ours in KEYS.items() if params.get(theirs) is not None}
    values["vocab_size"] = _vocab_size(values.get("vocab_size", -1), weights, where)
    check_sizes(params | {"vocab_size": values["vocab_size"]}, str(where))  # in the file's own words first
    values["intermediate_size"] = mlp_width(params, where)
    values["rope_parameters"] = rope_parameters(params)
    values.setdefault("max_position_embeddings", context_length(params))
    values["tie_word_embeddings"] = "output.weight" not in weights
    check_sizes(values, str(where))
    return LlamaConfig.parse(values, where=str(where))


def _vocab_size(stated: Any, weights: Any, where: Path) -> int:
    if "tok_embeddings.weight" not in weights:
        raise CheckpointError(f"{weights.path} holds no `tok_embeddings.weight`, so it is no Llama of Meta's")
    rows = weights.meta("tok_embeddings.weight").shape[0]
    if stated not in (-1, rows):
        raise CheckpointError(f"{where}: `vocab_size` is {stated!r:.20}, but the embedding has {rows} rows")
    return rows


def mlp_width(params: dict[str, Any], where: Path) -> int:
    """Two thirds of 4 dim, times a factor, rounded up to a multiple: 4096 -> 11008 (Llama 1), 14336 (Llama 3 8B)."""
    dim, multiple, factor = params.get("dim"), params.get("multiple_of", 256), params.get("ffn_dim_multiplier")
    if type(dim) is not int or type(multiple) is not int or not 0 < multiple <= 2**20:
        raise CheckpointError(f"{where}: `dim` and `multiple_of` must be whole numbers above 0")
    if factor is not None and not (isinstance(factor, int | float) and 0 < factor < 100):
        raise CheckpointError(f"{where}: `ffn_dim_multiplier` is {factor!r:.20}: a number around 1 is expected")
    width = int(2 * 4 * dim / 3)
    if factor is not None:
        width = int(factor * width)
    return multiple * -(-width // multiple)


def rope_parameters(params: dict[str, Any]) -> dict[str, Any]:
    """Llama 3 states its base; 3.1 has its long wavelengths stretched, by 8 where the file does not tell."""
    rope: dict[str, Any] = {"rope_theta": params.get("rope_theta", 10_000.0)}
    if params.get("use_scaled_rope"):
        factor = params.get("rope_scaling_factor", 8.0)
        rope |= {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        rope["original_max_position_embeddings"] = 8192
    return rope


def context_length(params: dict[str, Any]) -> int:
    """The published contexts; the file does not hold them: 2048, 4096, 8192, 131072 (Llama 1, 2, 3, 3.1)."""
    if params.get("use_scaled_rope"):
        return 131_072
    if "rope_theta" in params:
        return 8192
    return 4096 if params.get("norm_eps") == 1e-5 else 2048


def weight_map(config: LlamaConfig) -> WeightMap:
    """Meta's names to ours; queries and keys reordered for half-split rotary positions."""
    ours, theirs = "blocks.{i}.", "layers.{i}."
    return WeightMap(
        rule("embed.tokens", "tok_embeddings"),
        rule(ours + "attn.q_proj", theirs + "attention.wq", _reordered(config.num_attention_heads)),
        rule(ours + "attn.k_proj", theirs + "attention.wk", _reordered(_key_heads(config))),
        rule(ours + "attn.v_proj", theirs + "attention.wv"),
        rule(ours + "attn.o_proj", theirs + "attention.wo"),
        rule(ours + "mlp.gate_proj", theirs + "feed_forward.w1"),
        rule(ours + "mlp.down_proj", theirs + "feed_forward.w2"),
        rule(ours + "mlp.up_proj", theirs + "feed_forward.w3"),
        rule(ours + "norm1", theirs + "attention_norm"),
        rule(ours + "norm2", theirs + "ffn_norm"),
        rule("norm", "norm"),
        rule("lm_head", "output"),
        ignore=("rope.freqs",),  # computed, not learned
        i=config.num_hidden_layers,
    )


def _key_heads(config: LlamaConfig) -> int:
    return config.num_key_value_heads or config.num_attention_heads


def _reordered(heads: int) -> Mapped:
    return Mapped(
        lambda weight: interleaved_to_half_split(weight, heads), lambda weight: half_split_to_interleaved(weight, heads)
    )
