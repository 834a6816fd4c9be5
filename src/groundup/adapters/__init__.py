"""What is put on a finished model from outside: few trained numbers that make it do something new.

from groundup.adapters import LoRAConfig, add_adapter

adapters = add_adapter(model, LoRAConfig(rank=8), name="legal")   # the base is frozen, the adapter learns
print(adapters.report())
...                                                               # train as any model
save_adapter(model, "legal")                                      # a folder that peft loads
merge(model)                                                      # the same model without anything added

configs/        the settings of each kind; import no torch
part.py         what stands at one place of a model: a part, and the layer that carries parts
plan.py         what a kind would put where; nothing is changed before all of it is known to fit
attach.py       put on, take off, choose, for a whole batch or row by row
lora.py, ...    one kind a file
files.py        adapter_config.json and adapter_model.safetensors
"""

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "add_adapter": "attach",
    "remove_adapter": "attach",
    "adapters_of": "attach",
    "AdapterConfig": "config",
    "LoRAConfig": "configs.lora",
    "BitFitConfig": "configs.partial",
    "PartialConfig": "configs.partial",
    "PrefixConfig": "configs.prefix",
    "PTuningConfig": "configs.p_tuning",
    "PTuningV2Config": "configs.prefix",
    "PromptConfig": "configs.prompt",
    "bake": "bake",
}

if TYPE_CHECKING:
    from groundup.adapters.attach import adapters_of, add_adapter, remove_adapter
    from groundup.adapters.config import AdapterConfig
    from groundup.adapters.bake import bake
    from groundup.adapters.configs.lora import LoRAConfig
    from groundup.adapters.configs.p_tuning import PTuningConfig
    from groundup.adapters.configs.partial import BitFitConfig, PartialConfig
    from groundup.adapters.configs.prefix import PrefixConfig, PTuningV2Config
    from groundup.adapters.configs.prompt import PromptConfig

__all__ = ["AdapterConfig", "BitFitConfig", "LoRAConfig", "PTuningConfig", "PTuningV2Config", "PartialConfig", "PrefixConfig", "PromptConfig", "adapters_of", "bake", "add_adapter", "remove_adapter"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'groundup.adapters' has no attribute {name!r}")
    return getattr(importlib.import_module(f"groundup.adapters.{_HOMES[name]}"), name)
