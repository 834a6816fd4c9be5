"""The spellings of `config.json`: transformers 5 and older ones, read into one and written as both.

    transformers 5                                          older
    dtype                                                   torch_dtype
    rope_parameters: {"rope_theta", "rope_type", ...}       rope_theta on top, rope_scaling: {"type", ...}

The canonical form has the names of transformers 5. Also here: limits on sizes, so that an absurd or hostile file is
refused before memory is asked for.
"""

import math
from typing import Any

from groundup.base.errors import CheckpointError

CODE_KEYS = ("auto_map", "trust_remote_code", "custom_pipelines", "custom_object")
INFINITY = {"__float__": "Infinity"}
"""What transformers 5 writes for a number that JSON lacks."""
LEGACY_ROPE_TYPES = {"su": "longrope"}

# The largest value that any published model comes near, with room: 16 times and more.
LIMITS: dict[str, int] = {
    **dict.fromkeys(("vocab_size", "text_vocab_size", "image_vocab_size"), 2**24),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "embedding_size"), 2**20),
    **dict.fromkeys(
        ("intermediate_size", "n_inner", "d_ff", "ffn_dim", "moe_intermediate_size", "ffn_hidden_size"), 2**23
    ),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers", "num_decoder_layers"), 2**14),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads", "num_key_value_heads", "n_heads"), 2**16),
    **dict.fromkeys(("head_dim", "d_kv", "kv_lora_rank", "q_lora_rank", "v_head_dim", "qk_nope_head_dim"), 2**18),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "sliding_window", "context_length"), 2**34),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts", "num_experts_per_tok"), 2**16),
    **dict.fromkeys(("type_vocab_size", "num_labels"), 2**20),
}
POSITIVE = frozenset(("vocab_size", "hidden_size", "n_embd", "d_model", "num_attention_heads", "n_head", "num_heads"))
MAX_PARAMETERS = 10**14


def normalise_config(config: dict[str, Any]) -> dict[str, Any]:
    """The config in the spelling of transformers 5; unknown keys are kept, the argument is not changed.

    Values inside `rope_parameters` win over those beside it, as in transformers. A `rope_parameters` with one entry
    per layer type is left as it is.

    Raises:
        CheckpointError: a rope entry or dtype has the wrong type, or the two spellings contradict each other.
    """
    result = dict(config)
    dtype = _one_value("dtype", result.pop("torch_dtype", None), "torch_dtype", result.pop("dtype", None))
    if dtype is not None:
        if not isinstance(dtype, str):
            raise CheckpointError(f"config.json: `dtype` must be a text such as 'bfloat16', found {dtype!r:.80}")
        result["dtype"] = dtype.removeprefix("torch.")
    rope = _rope(result)
    if rope:
        result["rope_parameters"] = rope
    return result


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """Take the rope keys out of `config` and return them as one `rope_parameters`."""
    theta = config.pop("rope_theta", None)
    scaling = _spell(_object(config.pop("rope_scaling", None), "rope_scaling"))
    rope = _spell(_object(config.pop("rope_parameters", None), "rope_parameters"))
    if per_layer_type(rope):
        return rope
    for key in scaling.keys() & rope.keys():
        _one_value(f"rope_parameters.{key}", scaling[key], f"rope_scaling.{key}", rope[key])
    merged = {**scaling, **rope}
    if theta is not None:
        merged["rope_theta"] = _one_value("rope_parameters.rope_theta", theta, "rope_theta", merged.get("rope_theta"))
    if merged:
        merged.setdefault("rope_type", "default")
    return merged


def per_layer_type(rope: dict[str, Any]) -> bool:
    """Whether `rope_parameters` holds an object for each type of layer ("full_attention", "sliding_attention")."""
    return bool(rope) and any(isinstance(value, dict) for value in rope.values())


def _spell(rope: dict[str, Any]) -> dict[str, Any]:
    """`type` becomes `rope_type`, and its older values their newer names."""
    rope = dict(rope)
    old = rope.pop("type", None)
    kind = rope.setdefault("rope_type", old) if old is not None else rope.get("rope_type")
    if isinstance(kind, str):
        rope["rope_type"] = LEGACY_ROPE_TYPES.get(kind, kind)
    return rope


def _object(value: Any, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CheckpointError(f"config.json: `{name}` must be an object, found {value!r:.80}")
    return value


def _one_value(name: str, old: Any, old_name: str, new: Any) -> Any:
    if old is not None and new is not None and old != new:
        raise CheckpointError(
            f"config.json: `{name}` is {new!r:.80} but `{old_name}` is {old!r:.80}: remove one of them"
        )
    return old if new is None else new


def both_spellings(config: dict[str, Any]) -> dict[str, Any]:
    """The config as it is written: transformers 5's keys and, for older readers, `torch_dtype`, `rope_theta`,
    `rope_scaling`.

    transformers 5.23 takes the duplicates without a word; converters for llama.cpp and vLLM read them. A
    `rope_parameters` by layer type has no older spelling and is written alone. Numbers without end (Mamba-2's
    `time_step_limit`) are written as `INFINITY`.
    """
    result = _spell_infinity(normalise_config(config))
    if "dtype" in result:
        result["torch_dtype"] = result["dtype"]
    rope = result.get("rope_parameters") or {}
    if per_layer_type(rope):
        return result
    if rope.get("rope_theta") is not None:
        result["rope_theta"] = rope["rope_theta"]
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    if scaling.get("rope_type", "default") != "default":
        result["rope_scaling"] = scaling
    return result


def _spell_infinity(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _spell_infinity(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_spell_infinity(inner) for inner in value]
    return dict(INFINITY) if isinstance(value, float) and value == math.inf else value


def without_code_keys(config: Any) -> tuple[Any, list[str]]:
    """The config without keys that name Python code (`auto_map`, ...), at any depth, and which were found."""
    if isinstance(config, list):
        parts = [without_code_keys(item) for item in config]
        return [part for part, _ in parts], [key for _, keys in parts for key in keys]
    if not isinstance(config, dict):
        return config, []
    found = [key for key in config if key in CODE_KEYS]
    kept = {}
    for key, value in config.items():
        if key not in CODE_KEYS:
            kept[key], inner = without_code_keys(value)
            found += inner
    return kept, found


def check_sizes(config: dict[str, Any], where: str = "config.json") -> None:
    """Refuse sizes that no model has, before anything is allocated.

    Raises:
        CheckpointError: a size that is negative, zero where that is senseless, no whole number, or absurdly large; a
            number that is not finite; a model of more than 10^14 parameters in all.
    """
    _check_numbers(config, where)
    for scope, name in _objects(config):
        for key, limit in LIMITS.items():
            for value in _listed(scope.get(key)):
                _check_size(value, limit, 1 if key in POSITIVE else 0, f"{where}: `{name}{key}`")
        _check_total(scope, where)


def _objects(config: dict[str, Any], prefix: str = "") -> list[tuple[dict[str, Any], str]]:
    """The config and the configs inside it (`text_config`, `vision_config`), each with its prefix."""
    found = [(config, prefix)]
    for key, value in config.items():
        if isinstance(value, dict) and key.endswith(("_config", "config")):
            found += _objects(value, f"{prefix}{key}.")
    return found


def _listed(value: Any) -> list[Any]:
    """A size, or one for each layer; None means that the model's default holds."""
    if value is None:
        return []
    return [item for item in value if item is not None] if isinstance(value, list) else [value]


def _check_size(value: Any, limit: int, least: int, where: str) -> None:
    if type(value) is not int:
        raise CheckpointError(f"{where} must be a whole number, found {value!r:.80}")
    if not least <= value <= limit:
        raise CheckpointError(f"{where} is {value:.6g}: a size between {least} and {limit:,} is expected")


def _check_total(config: dict[str, Any], where: str) -> None:
    """A lower estimate of the parameters: vocab * hidden + layers * (hidden^2 + experts * hidden * intermediate)."""

    def size(*names: str, default: int = 1) -> int:
        return max([value for name in names for value in _listed(config.get(name))], default=default)

    hidden = size("hidden_size", "n_embd", "d_model", "dim")
    layers = size("num_hidden_layers", "n_layer", "num_layers", "n_layers")
    experts = size("num_local_experts", "num_experts", "n_routed_experts")
    inner = size("moe_intermediate_size", "intermediate_size", "n_inner", "d_ff", "ffn_dim")
    total = size("vocab_size") * hidden + layers * (hidden * hidden + max(experts, 1) * hidden * inner)
    if total > MAX_PARAMETERS:
        raise CheckpointError(f"{where} describes a model of over {total:.1e} parameters, which is refused")


def _check_numbers(value: Any, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise CheckpointError(f"{where}: {value} is not a usable number")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise CheckpointError(f"{where}: a number of {len(str(abs(value)))} digits is too large")
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_numbers(inner, f"{where}: `{key}`" if "`" not in where else f"{where[:-1]}.{key}`")
    elif isinstance(value, list):
        for inner in value:
            _check_numbers(inner, where)
