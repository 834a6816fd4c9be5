"""GPT-2 as OpenAI published it (Radford et al. 2019): hparams.json and a TensorFlow checkpoint `model.ckpt`.

Names look like model/h0/attn/c_attn/w; matrices are (1, in, out), as they came from convolutions of width 1.
"""

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from groundup.base.errors import CheckpointError, did_you_mean
from groundup.base.files import read_json, safe_join
from groundup.base.hf_config import check_sizes
from groundup.models.configs.gpt2 import GPT2Config
from groundup.weights import Chain, Fused, Mapped, Transpose, WeightMap, rule

HPARAMS, POINTER = "hparams.json", "checkpoint"
KEYS = {
    "n_vocab": "vocab_size",
    "n_ctx": "max_position_embeddings",
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_layer": "num_hidden_layers",
}


def index_file(path: Path) -> Path | None:
    """The .index file that a path means: itself, the one that the folder's `checkpoint` names, or the only one."""
    if path.is_file():
        return path if path.suffix == ".index" else None
    found = sorted(path.glob("*.index"))
    if not found:
        return None
    named = _latest(path)
    if named is not None and (path / named).is_file():
        return safe_join(path, named)
    if len(found) > 1:
        raise CheckpointError(
            f"{path} holds several checkpoints ({', '.join(file.name for file in found[:4])}): give the path of one"
        )
    return safe_join(path, found[0].name)


def _latest(folder: Path) -> str | None:
    """The file name that `model_checkpoint_path: "..."` gives; folders of the machine it came from do not count."""
    pointer = folder / POINTER
    if not pointer.is_file() or pointer.stat().st_size > 2**20:
        return None
    match = re.search(
        r'^model_checkpoint_path: "([^"\n]+)"', pointer.read_text(encoding="utf-8", errors="replace"), re.M
    )
    return Path(match[1].replace("\\", "/")).name + ".index" if match else None


def config_of(weights: Any) -> GPT2Config:
    """The shape of the model, from hparams.json beside the checkpoint."""
    where = weights.path.parent / HPARAMS
    values = read_json(where)
    if not isinstance(values, dict):
        raise CheckpointError(f"{where} must hold an object, found {type(values).__name__}")
    if unknown := [key for key in values if key not in KEYS]:
        hint = did_you_mean(unknown[0], KEYS)
        raise CheckpointError(f"{where} has keys that are not understood here: {', '.join(unknown)}.{hint}")
    if missing := [key for key in KEYS if key not in values]:
        raise CheckpointError(f"{where} lacks {', '.join(missing)}")
    check_sizes(values, str(where))  # in the file's own words first
    named = {ours: values[theirs] for theirs, ours in KEYS.items()}
    check_sizes(named, str(where))
    return GPT2Config.parse(named, where=str(where))


def weight_map(config: GPT2Config) -> WeightMap:
    """OpenAI's names to ours."""
    ours, theirs, d = "blocks.{i}.", "model/h{i}/", config.hidden_size
    qkv = Fused(d, d, d)
    return WeightMap(
        rule("embed.tokens.weight", "model/wte"),
        rule("embed.positions.weight", "model/wpe"),
        *_norm(ours + "norm1", theirs + "ln_1"),
        rule([ours + f"attn.{p}_proj.weight" for p in "qkv"], theirs + "attn/c_attn/w", Chain(MATRIX, qkv)),
        rule([ours + f"attn.{p}_proj.bias" for p in "qkv"], theirs + "attn/c_attn/b", qkv),
        *_linear(ours + "attn.o_proj", theirs + "attn/c_proj"),
        *_norm(ours + "norm2", theirs + "ln_2"),
        *_linear(ours + "mlp.up_proj", theirs + "mlp/c_fc"),
        *_linear(ours + "mlp.down_proj", theirs + "mlp/c_proj"),
        *_norm("norm", "model/ln_f"),
        i=config.num_hidden_layers,
    )


def _flat(weight: Tensor) -> Tensor:
    if weight.ndim != 3 or len(weight) != 1:
        raise CheckpointError(f"a matrix of shape (1, in, out) is expected, found {tuple(weight.shape)}")
    return weight[0]


MATRIX = Chain(Mapped(_flat, lambda weight: weight[None]), Transpose())


def _linear(ours: str, theirs: str) -> list[Any]:
    return [rule(ours + ".weight", theirs + "/w", MATRIX), rule(ours + ".bias", theirs + "/b")]


def _norm(ours: str, theirs: str) -> list[Any]:
    return [rule(ours + ".weight", theirs + "/g"), rule(ours + ".bias", theirs + "/b")]
