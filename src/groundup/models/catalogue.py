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
from groundup.models.configs.chatglm import ChatGLMConfig
from groundup.models.configs.chatglm_6b import ChatGLM6BConfig
from groundup.models.configs.cohere2 import Cohere2Config
from groundup.models.configs.deepseek_v2 import DeepseekV2Config
from groundup.models.configs.deepseek_v3 import DeepseekV3Config
from groundup.models.configs.elmo import ElmoConfig
from groundup.models.configs.falcon import FalconConfig
from groundup.models.configs.gemma import GemmaConfig
from groundup.models.configs.gemma2 import Gemma2Config
from groundup.models.configs.gemma3 import Gemma3Config
from groundup.models.configs.gemma4 import Gemma4Config
from groundup.models.configs.glm import GlmConfig
from groundup.models.configs.glm4 import Glm4Config
from groundup.models.configs.glm_130b import GLM130BConfig
from groundup.models.configs.glm_2021 import GLM2021Config
from groundup.models.configs.gpt2 import GPT2Config
from groundup.models.configs.gpt3 import GPT3Config
from groundup.models.configs.gpt_neo import GPTNeoConfig
from groundup.models.configs.gpt_neox import GPTNeoXConfig
from groundup.models.configs.gpt_oss import GptOssConfig
from groundup.models.configs.gptj import GPTJConfig
from groundup.models.configs.llama import LlamaConfig
from groundup.models.configs.mamba import MambaConfig
from groundup.models.configs.mamba2 import Mamba2Config
from groundup.models.configs.minicpm import MiniCPMConfig
from groundup.models.configs.mistral import MistralConfig
from groundup.models.configs.mixtral import MixtralConfig
from groundup.models.configs.ngram import NGramConfig
from groundup.models.configs.olmo import OlmoConfig
from groundup.models.configs.olmo2 import Olmo2Config
from groundup.models.configs.olmo3 import Olmo3Config
from groundup.models.configs.openai_gpt import OpenAIGPTConfig
from groundup.models.configs.openelm import OpenELMConfig
from groundup.models.configs.opt import OPTConfig
from groundup.models.configs.pangu import PanguConfig
from groundup.models.configs.parts import PartsConfig
from groundup.models.configs.phi import PhiConfig
from groundup.models.configs.phi3 import Phi3Config
from groundup.models.configs.qwen import QwenConfig
from groundup.models.configs.qwen2 import Qwen2Config
from groundup.models.configs.qwen2_moe import Qwen2MoeConfig
from groundup.models.configs.qwen3 import Qwen3Config
from groundup.models.configs.qwen3_5 import Qwen3_5Config
from groundup.models.configs.qwen3_5_moe import Qwen3_5MoeConfig
from groundup.models.configs.qwen3_moe import Qwen3MoeConfig
from groundup.models.configs.qwen3_next import Qwen3NextConfig
from groundup.models.configs.rnn import RNNConfig
from groundup.models.configs.rwkv import RWKV2Config, RWKV3Config, RWKV4Config
from groundup.models.configs.rwkv_heads import RWKV5Config, RWKV6Config, RWKV7Config
from groundup.models.configs.text_part import text_part

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
    "gpt_oss": Family(GptOssConfig, "groundup.models.text.gpt_oss:GptOss"),
    "llama": Family(LlamaConfig, "groundup.models.text.llama:Llama"),
    "cohere2": Family(Cohere2Config, "groundup.models.text.cohere2:Cohere2"),
    "deepseek_v2": Family(DeepseekV2Config, "groundup.models.text.deepseek_v2:DeepseekV2"),
    "deepseek_v3": Family(DeepseekV3Config, "groundup.models.text.deepseek_v3:DeepseekV3"),
    "gemma": Family(GemmaConfig, "groundup.models.text.gemma:Gemma"),
    "gemma2": Family(Gemma2Config, "groundup.models.text.gemma2:Gemma2"),
    "gemma3_text": Family(Gemma3Config, "groundup.models.text.gemma3:Gemma3"),
    "glm_2021": Family(GLM2021Config, "groundup.models.text.glm_2021:GLM2021"),
    "gemma4_text": Family(Gemma4Config, "groundup.models.text.gemma4:Gemma4"),
    "glm_130b": Family(GLM130BConfig, "groundup.models.text.glm_130b:GLM130B"),
    "chatglm_6b": Family(ChatGLM6BConfig, "groundup.models.text.chatglm_6b:ChatGLM6B"),
    "chatglm": Family(ChatGLMConfig, "groundup.models.text.chatglm:ChatGLM"),
    "glm": Family(GlmConfig, "groundup.models.text.glm:Glm"),
    "glm4": Family(Glm4Config, "groundup.models.text.glm4:Glm4"),
    "mistral": Family(MistralConfig, "groundup.models.text.mistral:Mistral"),
    "mamba": Family(MambaConfig, "groundup.models.text.mamba:Mamba"),
    "mamba2": Family(Mamba2Config, "groundup.models.text.mamba2:Mamba2"),
    "minicpm": Family(MiniCPMConfig, "groundup.models.text.minicpm:MiniCPM"),
    "olmo": Family(OlmoConfig, "groundup.models.text.olmo:Olmo"),
    "mixtral": Family(MixtralConfig, "groundup.models.text.mixtral:Mixtral"),
    "olmo2": Family(Olmo2Config, "groundup.models.text.olmo2:Olmo2"),
    "openelm": Family(OpenELMConfig, "groundup.models.text.openelm:OpenELM"),
    "gpt_pangu": Family(PanguConfig, "groundup.models.text.pangu:Pangu"),
    "olmo3": Family(Olmo3Config, "groundup.models.text.olmo3:Olmo3"),
    "parts": Family(PartsConfig, "groundup.models.text.parts:Parts"),
    "phi3": Family(Phi3Config, "groundup.models.text.phi3:Phi3"),
    "qwen": Family(QwenConfig, "groundup.models.text.qwen:Qwen"),
    "qwen2": Family(Qwen2Config, "groundup.models.text.qwen2:Qwen2"),
    "qwen2_moe": Family(Qwen2MoeConfig, "groundup.models.text.qwen2_moe:Qwen2Moe"),
    "qwen3": Family(Qwen3Config, "groundup.models.text.qwen3:Qwen3"),
    "ngram": Family(NGramConfig, "groundup.models.text.ngram:NGramLM"),
    "rnn": Family(RNNConfig, "groundup.models.text.rnn:RecurrentLM"),
    "qwen3_moe": Family(Qwen3MoeConfig, "groundup.models.text.qwen3_moe:Qwen3Moe"),
    "qwen3_next": Family(Qwen3NextConfig, "groundup.models.text.qwen3_next:Qwen3Next"),
    "qwen3_5_text": Family(Qwen3_5Config, "groundup.models.text.qwen3_5:Qwen3_5"),
    "qwen3_5_moe_text": Family(Qwen3_5MoeConfig, "groundup.models.text.qwen3_5_moe:Qwen3_5Moe"),
    "rwkv2": Family(RWKV2Config, "groundup.models.text.rwkv2:RWKV2"),
    "rwkv3": Family(RWKV3Config, "groundup.models.text.rwkv3:RWKV3"),
    "rwkv": Family(RWKV4Config, "groundup.models.text.rwkv4:RWKV4"),
    "rwkv5": Family(RWKV5Config, "groundup.models.text.rwkv5:RWKV5"),
    "rwkv6": Family(RWKV6Config, "groundup.models.text.rwkv6:RWKV6"),
    "rwkv7": Family(RWKV7Config, "groundup.models.text.rwkv7:RWKV7"),
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
    """A config.json of any known family, or of a model for images and texts whose text model is of one."""
    model_type = values.get("model_type")
    if not isinstance(model_type, str):
        raise CheckpointError("config.json has no `model_type`, so the family is not known")
    if ChatGLM6BConfig.reads(values):
        model_type = ChatGLM6BConfig.family()
    if PanguConfig.reads(values):
        model_type = PanguConfig.family()
    if any(f.config.whole == model_type for f in FAMILIES.values()):
        values = text_part(values)
        model_type = values["model_type"]
    for config in (ChatGLM6BConfig, GLM2021Config):  # whose files bear the name of another family
        if config.reads(values):
            model_type = config.family()
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
