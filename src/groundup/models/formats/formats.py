"""Which form of weights lies at a path, and how each is opened, configured and named."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.base.errors import CheckpointError
from groundup.base.folders import find_folder, read_config
from groundup.base.shards import PICKLED, ShardReader
from groundup.models.catalogue import config_from_hf, model_class
from groundup.models.configs.base import ModelConfig
from groundup.models.formats import mamba_ssm, meta_llama, openai_gpt2, rwkv
from groundup.models.formats.meta_llama import MetaLlamaWeights, is_meta_llama
from groundup.models.formats.reader import Weights
from groundup.models.formats.tensor_bundle import TensorBundle
from groundup.models.formats.torch_file import TorchFile, is_torch_file
from groundup.models.formats.torch_shards import INDEX, SINGLE, TorchShards
from groundup.weights import WeightMap

TRAINER_FILES = ("training_args", "optimizer", "scheduler", "rng_state", "scaler")

SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def special_ids(folder: Path) -> dict[str, Any]:
    """The begin, end and padding ids of generation_config.json, which count before config.json's; it may be absent."""
    if not (folder / "generation_config.json").exists():
        return {}
    values = read_config(folder, "generation_config.json")
    return {name: values[name] for name in SPECIAL_IDS if values.get(name) is not None}


@dataclass(frozen=True)
class Format:
    """A form of weights. `name` is for people; the three functions are what loading needs."""

    name: str

    def matches(self, path: Path) -> bool:
        """Whether the file or folder holds this form."""
        raise NotImplementedError

    def open(self, path: Path) -> Weights:
        """The tensors."""
        raise NotImplementedError

    def config(self, weights: Any) -> ModelConfig:
        """The shape of the model: config.json beside the weights, unless the form has its own file."""
        folder = weights.path if weights.path.is_dir() else weights.path.parent
        if not (folder / "config.json").exists():
            raise CheckpointError(
                f"{weights.path} ({self.name}) has no config.json beside it, so family and sizes are not known: "
                "put the model's config.json there"
            )
        return config_from_hf(read_config(folder) | special_ids(folder))

    def weight_map(self, config: ModelConfig) -> WeightMap:
        """Their names to ours."""
        return model_class(config).weight_map(config)


class Safetensors(Format):
    """model.safetensors, or shards with an index, or any one .safetensors file."""

    def matches(self, path: Path) -> bool:
        """By name; the header is checked on opening."""
        if path.is_file():
            return path.suffix == ".safetensors"
        return any(os.path.lexists(path / name) for name in ("model.safetensors", "model.safetensors.index.json"))

    def open(self, path: Path) -> ShardReader:
        """Headers only."""
        return ShardReader(path)


class HuggingFaceBin(Format):
    """pytorch_model.bin, or shards with an index."""

    def matches(self, path: Path) -> bool:
        """By name."""
        return path.is_dir() and ((path / SINGLE).exists() or (path / INDEX).exists())

    def open(self, path: Path) -> TorchShards:
        """Reads the pickles as data."""
        return TorchShards(path)


class MambaSSM(HuggingFaceBin):
    """pytorch_model.bin beside a config.json of the authors of Mamba."""

    def matches(self, path: Path) -> bool:
        """By the keys of config.json."""
        return super().matches(path) and mamba_ssm.is_mamba_ssm(path)

    def config(self, weights: Any) -> ModelConfig:
        """From the authors' names."""
        return mamba_ssm.config_of(read_config(weights.path if weights.path.is_dir() else weights.path.parent))

    def weight_map(self, config: ModelConfig) -> WeightMap:
        """The authors' names."""
        return mamba_ssm.weight_map(config)


class MetaLlama(Format):
    """params.json and consolidated.NN.pth."""

    def matches(self, path: Path) -> bool:
        """By both names."""
        return path.is_dir() and is_meta_llama(path)

    def open(self, path: Path) -> MetaLlamaWeights:
        """All ranks, joined."""
        return MetaLlamaWeights(path)

    def config(self, weights: Any) -> ModelConfig:
        """From params.json."""
        return meta_llama.config_of(weights)

    def weight_map(self, config: Any) -> WeightMap:
        """Meta's names."""
        return meta_llama.weight_map(config)


class OpenAIGPT2(Format):
    """A TensorFlow checkpoint with hparams.json."""

    def matches(self, path: Path) -> bool:
        """By the .index file."""
        return openai_gpt2.index_file(path) is not None

    def open(self, path: Path) -> TensorBundle:
        """The index, checked."""
        index = openai_gpt2.index_file(path)
        assert index is not None
        return TensorBundle(index)

    def config(self, weights: Any) -> ModelConfig:
        """From hparams.json."""
        return openai_gpt2.config_of(weights)

    def weight_map(self, config: Any) -> WeightMap:
        """OpenAI's names."""
        return openai_gpt2.weight_map(config)


class Torch(Format):
    """One file of torch.save, or a folder with one, with config.json beside it."""

    def matches(self, path: Path) -> bool:
        """A file by how it begins or ends, a folder by holding exactly one."""
        if path.is_dir():
            return len(torch_files(path)) == 1
        return path.suffix in PICKLED or is_torch_file(path)

    def open(self, path: Path) -> TorchFile:
        """Reads the pickle as data."""
        return TorchFile(torch_files(path)[0] if path.is_dir() else path)


class RWKV(Torch):
    """A file of torch.save, or a folder with one, that holds BlinkDL's names."""

    def matches(self, path: Path) -> bool:
        """By the names of its tensors."""
        if not super().matches(path):
            return False
        try:
            with self.open(path) as weights:
                return rwkv.is_rwkv(weights)
        except CheckpointError:
            return False

    def config(self, weights: Any) -> ModelConfig:
        """From names and shapes."""
        return rwkv.config_of(weights)

    def weight_map(self, config: Any) -> WeightMap:
        """BlinkDL's names."""
        return rwkv.weight_map(config)


FORMATS: tuple[Format, ...] = (
    Safetensors("safetensors"),
    MetaLlama("Meta consolidated .pth"),
    OpenAIGPT2("OpenAI TensorFlow checkpoint"),
    MambaSSM("mamba_ssm's pytorch_model.bin"),
    HuggingFaceBin("pytorch_model.bin"),
    RWKV("RWKV .pth"),
    Torch("torch.save file"),
)


def find_weights(path_or_name: str | Path) -> Path:
    """The file or folder of weights that is meant: a file as it is, anything else by `find_folder`."""
    path = Path(path_or_name).expanduser()
    return path if path.is_file() else find_folder(path_or_name)


def find_format(path: Path) -> Format:
    """The first form that the file or folder holds.

    Raises:
        CheckpointError: none of them; the message says what is looked for.
    """
    for form in FORMATS:
        if form.matches(path):
            return form
    if path.is_dir():
        return FORMATS[0]  # says what is missing
    raise CheckpointError(f"{path} is in no known form of weights: {', '.join(form.name for form in FORMATS)}")


def open_weights(path: str | Path) -> Weights:
    """A reader of the tensors in a file or folder of any known form; use it as a context manager.

    Raises:
        CheckpointError: no known form, damaged, or unsafe. Nothing in a file is ever executed.
    """
    path = find_weights(path)
    return find_format(path).open(path)


def torch_files(folder: Path) -> list[Path]:
    """The files of torch.save in a folder, by name; what a trainer keeps of optimizers does not count."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix in (".pth", ".pt", ".bin") and file.is_file() and file.stem not in TRAINER_FILES
    )
