"""The settings of every kind of adapter, and their union."""

from typing import TYPE_CHECKING, Any

from groundup.adapters.config import AdapterConfig
from groundup.adapters.configs.lora import LoRAConfig
from groundup.adapters.configs.p_tuning import PTuningConfig
from groundup.adapters.configs.partial import BitFitConfig, PartialConfig
from groundup.adapters.configs.prefix import PrefixConfig, PTuningV2Config
from groundup.adapters.configs.prompt import PromptConfig
from groundup.base.config import one_of

if TYPE_CHECKING:
    AnyAdapter = AdapterConfig
else:
    AnyAdapter: Any = one_of(AdapterConfig)

__all__ = [
    "AdapterConfig",
    "AnyAdapter",
    "BitFitConfig",
    "LoRAConfig",
    "PTuningConfig",
    "PTuningV2Config",
    "PartialConfig",
    "PrefixConfig",
    "PromptConfig",
]
