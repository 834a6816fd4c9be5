"""The settings of every kind of adapter, and their union."""

from typing import TYPE_CHECKING, Any

from groundup.adapters.config import AdapterConfig
from groundup.adapters.configs.adalora import AdaLoRAConfig
from groundup.adapters.configs.bottleneck import BottleneckConfig
from groundup.adapters.configs.fusion import FusionConfig
from groundup.adapters.configs.ia3 import IA3Config
from groundup.adapters.configs.invertible import InvertibleConfig
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
    "AdaLoRAConfig",
    "AdapterConfig",
    "AnyAdapter",
    "BitFitConfig",
    "BottleneckConfig",
    "FusionConfig",
    "IA3Config",
    "InvertibleConfig",
    "LoRAConfig",
    "PTuningConfig",
    "PTuningV2Config",
    "PartialConfig",
    "PrefixConfig",
    "PromptConfig",
]
