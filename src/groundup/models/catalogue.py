"""Every family: where its shape and its code are. No torch here."""

import functools
import importlib
import operator
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import Field

from groundup.base.errors import CheckpointError, UsageError, did_you_mean
from groundup.models.configs.awd_lstm import AWDLSTMConfig
from groundup.models.configs.base import ModelConfig
from groundup.models.configs.bengio import BengioConfig
from groundup.models.configs.bloom import BloomConfig
from groundup.models.configs.elmo import ElmoConfig
from groundup.models.configs.falcon import FalconConfig
from groundup.models.configs.gemma import GemmaConfig
from groundup.models.configs.gpt2 import GPT2Config
from groundup.models.configs.gpt3 import GPT3Config
from groundup.models.configs.gpt_neo import GPTNeoConfig
from groundup.models.configs.gpt_neox import GPTNeoXConfig
from groundup.models.configs.gptj import GPTJConfig
from groundup.models.configs.llama import LlamaConfig
from groundup.models.configs.mamba import MambaConfig
from groundup.models.configs.minicpm import MiniCPMConfig
from groundup.models.configs.mistral import MistralConfig
from groundup.models.configs.ngram import NGramConfig
from groundup.models.configs.olmo import OlmoConfig
from groundup.models.configs.olmo2 import Olmo2Config
from groundup.models.configs.openai_gpt import OpenAIGPTConfig
from groundup.models.configs.opt import OPTConfig
from groundup.models.configs.parts import PartsConfig
from groundup.models.configs.phi import PhiConfig
from groundup.models.configs.phi3 import Phi3Config
from groundup.models.configs.qwen2 import Qwen2Config
from groundup.models.configs.qwen3 import Qwen3Config
from groundup.models.configs.rnn import RNNConfig

if TYPE_CHECKING:
    from groundup.models.text.causal_lm import CausalLM


class Family(NamedTuple):
    """One model_type: its config, and `module:Class` of its code."""

    config: type[ModelConfig]
    code: str


FAMILIES: dict[str, Family] = {
    "awd_lstm": Family(AWDLSTMConfig, "groundup.models.text.awd_lstm:AWDLSTM"),
    "bengio": Family(BengioConfig, "groundup.models.text.bengio:FeedForwardLM"),
    "elmo": Family(ElmoConfig, "groundup.models.text.elmo:Elmo"),
    "gpt2": Family(GPT2Config, "groundup.models.text.gpt2:GPT2"),
    "openai-gpt": Family(OpenAIGPTConfig, "groundup.models.text.openai_gpt:OpenAIGPT"),
    "gpt3": Family(GPT3Config, "groundup.models.text.gpt3:GPT3"),
    "gpt_neo": Family(GPTNeoConfig, "groundup.models.text.gpt_neo:GPTNeo"),
    "opt": Family(OPTConfig, "groundup.models.text.opt:OPT"),
    "gpt_neox": Family(GPTNeoXConfig, "groundup.models.text.gpt_neox:GPTNeoX"),
    "bloom": Family(BloomConfig, "groundup.models.text.bloom:Bloom"),
    "falcon": Family(FalconConfig, "groundup.models.text.falcon:Falcon"),
    "gptj": Family(GPTJConfig, "groundup.models.text.gptj:GPTJ"),
    "phi": Family(PhiConfig, "groundup.models.text.phi:Phi"),
    "llama": Family(LlamaConfig, "groundup.models.text.llama:Llama"),
    "gemma": Family(GemmaConfig, "groundup.models.text.gemma:Gemma"),
    "mistral": Family(MistralConfig, "groundup.models.text.mistral:Mistral"),
    "mamba": Family(MambaConfig, "groundup.models.text.mamba:Mamba"),
    "minicpm": Family(MiniCPMConfig, "groundup.models.text.minicpm:MiniCPM"),
    "olmo": Family(OlmoConfig, "groundup.models.text.olmo:Olmo"),
    "olmo2": Family(Olmo2Config, "groundup.models.text.olmo2:Olmo2"),
    "parts": Family(PartsConfig, "groundup.models.text.parts:Parts"),
    "phi3": Family(Phi3Config, "groundup.models.text.phi3:Phi3"),
    "qwen2": Family(Qwen2Config, "groundup.models.text.qwen2:Qwen2"),
    "qwen3": Family(Qwen3Config, "groundup.models.text.qwen3:Qwen3"),
    "ngram": Family(NGramConfig, "groundup.models.text.ngram:NGramLM"),
    "rnn": Family(RNNConfig, "groundup.models.text.rnn:RecurrentLM"),
}


def family(model_type: str) -> Family:
    """The family called `model_type`."""
    if model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise CheckpointError(
            f"model_type `{model_type}` is not a known family.{did_you_mean(model_type, FAMILIES)} Known: {known}"
        )
    return FAMILIES[model_type]


def model_class(config: ModelConfig) -> "type[CausalLM]":
    """The class that a config describes; imports torch."""
    module, _, name = family(config.model_type).code.partition(":")
    return getattr(importlib.import_module(module), name)


def config_from_hf(values: dict[str, Any]) -> ModelConfig:
    """A config.json of any known family."""
    model_type = values.get("model_type")
    if not isinstance(model_type, str):
        raise CheckpointError("config.json has no `model_type`, so the family is not known")
    return family(model_type).config.from_hf(values)


def any_config() -> Any:
    """The union of all families' configs, told apart by `model_type`: for use as a field's type."""
    configs = [family.config for family in FAMILIES.values()]
    return Annotated[functools.reduce(operator.or_, configs), Field(discriminator="model_type")]  # type: ignore[type-var]


def sizes() -> dict[str, ModelConfig]:
    """Every published size by name."""
    return {name: f.config.of_size(name) for f in FAMILIES.values() for name in f.config.sizes}


def config_of_size(name: str) -> ModelConfig:
    """A published size by name."""
    for f in FAMILIES.values():
        if name in f.config.sizes:
            return f.config.of_size(name)
    known = [name for f in FAMILIES.values() for name in f.config.sizes]
    raise UsageError(f"no published size `{name}`.{did_you_mean(name, known)} One of: {', '.join(known)}")
