"""Mamba and Mamba-2 as their authors publish them (github.com/state-spaces/mamba): pytorch_model.bin, and a config.json
without a model_type.

    {"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {"layer": "Mamba2"}, ...}

`ssm_cfg` holds what the mixer is called with; what it leaves out has the value that the authors' code gives it. Tensors
have the names of Hugging Face's files but for the embedding.
"""

from pathlib import Path
from typing import Any

from groundup.base.errors import CheckpointError, UsageError, did_you_mean
from groundup.base.files import atomic_file
from groundup.base.folders import read_config, write_json
from groundup.models.catalogue import family, model_class
from groundup.models.configs.mamba import StateSpaceConfig
from groundup.weights import WeightMap

NAMES = {
    "d_state": "state_size",
    "d_conv": "conv_kernel",
    "expand": "expand",
    "dt_min": "time_step_min",
    "dt_max": "time_step_max",
    "dt_init_floor": "time_step_floor",
    "bias": "use_bias",
    "conv_bias": "use_conv_bias",
}
"""Keys of ssm_cfg in both generations -> ours."""
OWN = {
    "mamba": {"dt_rank": "time_step_rank"},
    "mamba2": {"headdim": "head_dim", "ngroups": "n_groups", "dt_limit": "time_step_limit"},
}
"""Keys of one generation alone."""
USUAL = {"mamba": {"state_size": 16}, "mamba2": {"state_size": 128, "head_dim": 64, "n_groups": 1}}
"""Values that the authors' code takes where ssm_cfg is silent and ours would be other ones."""
REQUIRED: dict[str, Any] = {"rmsnorm": True, "norm_before_gate": False, "D_has_hdim": False, "d_ssm": None}
"""Switches of Mamba-2's mixer for which only one position is built here, that of the released models."""
WITHOUT_EFFECT = frozenset(
    ("layer", "chunk_size", "use_mem_eff_path", "use_fast_path", "conv_init", "A_init_range", "dt_init", "dt_scale")
)
OUTSIDE: dict[str, Any] = {"rms_norm": True, "d_intermediate": 0, "attn_layer_idx": [], "attn_cfg": {}}
"""The same outside the mixer: LayerNorm, MLPs and attention layers are not built here."""
READ = frozenset(("d_model", "n_layer", "vocab_size", "ssm_cfg", "pad_vocab_size_multiple", "tie_embeddings"))
PRECISION = frozenset(("residual_in_fp32", "fused_add_norm"))


def is_mamba_ssm(folder: Path) -> bool:
    """Whether config.json is in the authors' form."""
    try:
        values = read_config(folder)
    except CheckpointError:
        return False
    return "model_type" not in values and {"d_model", "n_layer", "ssm_cfg"} <= values.keys()


def config_of(values: dict[str, Any]) -> StateSpaceConfig:
    """The shape, from the authors' config.json.

    Raises:
        CheckpointError: a key is not understood, or asks for what is not built here.
    """
    mixer = values["ssm_cfg"]
    if not isinstance(mixer, dict):
        raise CheckpointError(f"config.json: `ssm_cfg` must be an object, found {mixer!r:.80}")
    layer = mixer.get("layer", "Mamba1")
    if layer not in ("Mamba1", "Mamba2"):
        raise CheckpointError(f"config.json: `ssm_cfg.layer` is {layer!r:.80}; Mamba1 and Mamba2 are known")
    kind = "mamba2" if layer == "Mamba2" else "mamba"
    names = NAMES | OWN[kind]
    _understood(values, OUTSIDE, READ | PRECISION, "")
    _understood(mixer, REQUIRED if kind == "mamba2" else {}, WITHOUT_EFFECT | names.keys(), "ssm_cfg.")
    shape = USUAL[kind] | {names[key]: value for key, value in mixer.items() if key in names}
    shape |= {"hidden_size": values["d_model"], "num_hidden_layers": values["n_layer"]}
    shape["tie_word_embeddings"] = values.get("tie_embeddings", True)
    multiple, vocab = values.get("pad_vocab_size_multiple", 8), values["vocab_size"]
    shape["vocab_size"] = -(-vocab // multiple) * multiple  # rows are added up to the next multiple
    if kind == "mamba2":
        shape["num_attention_heads"] = int(shape.get("expand", 2) * values["d_model"]) // shape["head_dim"]
        shape = family(kind).config.translate(shape)
    return family(kind).config.parse(shape, where="config.json")  # type: ignore[return-value]


def _understood(values: dict[str, Any], required: dict[str, Any], known: frozenset[str], prefix: str) -> None:
    for key, value in values.items():
        if key in required:
            if value != required[key]:
                raise CheckpointError(
                    f"config.json: `{prefix}{key}` is {value!r:.80}; only {required[key]} is built here"
                )
        elif key not in known:
            hint = did_you_mean(key, [*known, *required])
            raise CheckpointError(f"config.json: `{prefix}{key}` is not understood here.{hint}")


def weight_map(config: Any) -> WeightMap:
    """The authors' names to ours."""
    cls: Any = model_class(config)
    return cls.weight_map(config, embedding="backbone.embedding")


def save_mamba_ssm(model: Any, folder: str | Path) -> None:
    """Write a Mamba or Mamba-2 as a folder that the authors' `MambaLMHeadModel.from_pretrained` loads.

    Raises:
        UsageError: the model is neither, or the folder holds a config.json.
    """
    import torch

    config, folder = model.config, Path(folder)
    if not isinstance(config, StateSpaceConfig):
        raise UsageError(f"a {config.family()} model has no layout of mamba_ssm: `groundup export hf` writes its own")
    if (folder / "config.json").exists():
        raise UsageError(f"{folder} holds a config.json: name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    own = model.state_dict()
    tensors = dict(weight_map(config).save(own, own.__getitem__))
    with atomic_file(folder / "pytorch_model.bin") as file:
        torch.save({name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}, file)
    write_json(folder / "config.json", published_config(config))


def published_config(config: StateSpaceConfig) -> dict[str, Any]:
    """A shape as the authors' config.json."""
    kind, values = config.family(), config.to_hf()
    mixer = {key: values[ours] for key, ours in (NAMES | OWN[kind]).items()}
    if kind == "mamba2" and config.time_step_limit[1] is None:  # type: ignore[attr-defined]
        del mixer["dt_limit"]  # JSON has no number for it, and their code reads no other spelling
        if config.time_step_limit[0]:  # type: ignore[attr-defined]
            raise UsageError("a time_step_limit without a largest step cannot be written in the layout of mamba_ssm")
    return {
        **{"d_model": config.hidden_size, "n_layer": config.num_hidden_layers, "vocab_size": config.vocab_size},
        "ssm_cfg": {"layer": "Mamba2" if kind == "mamba2" else "Mamba1", **mixer},
        **{"rms_norm": True, "residual_in_fp32": True, "fused_add_norm": True},
        **{"pad_vocab_size_multiple": 1, "tie_embeddings": config.tie_word_embeddings},
    }
