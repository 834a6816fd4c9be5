"""RWKV as BlinkDL publishes it: one .pth file of torch.save and nothing else; names and shapes tell version and sizes.

2    att.time_mix                      5.0  att.ln_x, att.time_first
3    att.time_decay (D, 1)             5.1  att.gate, att.time_decay (H,)
4    att.time_decay (D,)               5.2  att.time_decay (H, N)
6    att.time_maa_x                    7    att.x_r
"""

import re
from pathlib import Path
from typing import Any

from groundup.base.errors import CheckpointError, UsageError
from groundup.base.files import atomic_file
from groundup.models.catalogue import family, model_class
from groundup.models.configs.rwkv import RWKV4Config, RWKVConfig
from groundup.weights import WeightMap

FIRST = "blocks.0.att."
CONTEXT = re.compile(r"ctx(\d{2,7})(?!\d)")


def is_rwkv(weights: Any) -> bool:
    """Whether the names are those of BlinkDL's RWKV files: `time_...` up to version 6, `x_r` in version 7."""
    signs = (FIRST + "time_", FIRST + "x_r")
    return "emb.weight" in weights and any(name.startswith(signs) for name in weights.names())


def config_of(weights: Any) -> RWKVConfig:
    """The shape of the model, from names and shapes; the context from the file's name, where it tells one.

    Raises:
        CheckpointError: tensors that the shape follows from are missing.
    """
    shapes = {name: weights.meta(name).shape for name in weights.names()}
    needed = ["emb.weight", FIRST + "key.weight", "blocks.0.ffn.key.weight"]
    missing = [name for name in needed if len(shapes.get(name, ())) != 2]
    if missing:
        raise CheckpointError(f"{weights.path} is an RWKV checkpoint without the matrices {', '.join(missing)}")
    vocab, hidden = shapes["emb.weight"]
    layers = [int(name.split(".")[1]) for name in shapes if re.match(r"blocks\.\d{1,4}\.", name)]
    values: dict[str, Any] = {"vocab_size": vocab, "hidden_size": hidden, "num_hidden_layers": 1 + max(layers)}
    values["intermediate_size"] = shapes["blocks.0.ffn.key.weight"][0]
    if found := CONTEXT.search(weights.path.name):
        values["max_position_embeddings"] = int(found[1])
    model_type, own = _version(shapes, weights.path)
    return family(model_type).config.parse(values | own, where=str(weights.path))  # type: ignore[return-value]


def _version(shapes: dict[str, tuple[int, ...]], path: Path) -> tuple[str, dict[str, Any]]:
    """The model_type, and the fields of its own."""

    def shape(name: str, dimensions: int) -> tuple[int, ...]:
        found = shapes.get(FIRST + name, ())
        if len(found) != dimensions:
            raise CheckpointError(f"{path}: {FIRST}{name} has the shape {found}; {dimensions} dimensions are expected")
        return found

    if FIRST + "x_r" in shapes:
        ranks = {"decay_rank": "w1", "rate_rank": "a1", "gate_rank": "g1"}
        own = {rank: shape(name, 2)[1] for rank, name in ranks.items()}
        if (deeper := shapes.get("blocks.1.att.v1")) is not None and len(deeper) == 2:
            own["residual_rank"] = deeper[1]  # the first block has none, or one that nothing uses
        return "rwkv7", own | {"num_attention_heads": shape("r_k", 2)[0]}
    if FIRST + "time_maa_x" in shapes:
        own = {"mix_rank": shape("time_maa_w2", 3)[1], "decay_rank": shape("time_decay_w1", 2)[1]}
        return "rwkv6", own | {"num_attention_heads": shape("time_faaaa", 2)[0]}
    decay = tuple(shapes.get(FIRST + "time_decay", ()))
    if FIRST + "ln_x.weight" in shapes and len(decay) > 0:
        gated, many = FIRST + "gate.weight" in shapes, len(decay) > 1 and decay[1] > 1
        return "rwkv5", {"num_attention_heads": decay[0], "version": "5.2" if many else "5.1" if gated else "5.0"}
    if FIRST + "time_mix" in shapes:
        return "rwkv2", {}
    if len(decay) == 2:
        return "rwkv3", {}
    return "rwkv", {"attention_hidden_size": shapes[FIRST + "key.weight"][0]}


def weight_map(config: RWKVConfig) -> WeightMap:
    """BlinkDL's names to ours; version 4 has others in Hugging Face's files."""
    cls: Any = model_class(config)
    return cls.published_map(config) if isinstance(config, RWKV4Config) else cls.weight_map(config)


def save_rwkv(model: Any, target: str | Path) -> Path:
    """Write an RWKV model as a file in BlinkDL's layout, for his `rwkv` library and all that reads it.

    Raises:
        UsageError: the model is no RWKV, or something is at `target`.
    """
    import torch

    target = Path(target)
    if not isinstance(model.config, RWKVConfig):
        raise UsageError(f"a {model.config.family()} model has no RWKV layout: `groundup export hf` writes its own")
    if target.exists():
        raise UsageError(f"{target} exists: name a new file")
    own = model.state_dict()
    tensors = dict(weight_map(model.config).save(own, own.__getitem__))
    with atomic_file(target) as file:
        torch.save({name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}, file)
    return target
