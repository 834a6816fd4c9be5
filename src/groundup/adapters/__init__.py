"""What is put on a finished model from outside: few trained numbers that make it do something new.

from groundup.adapters import LoRAConfig, add_adapter

adapters = add_adapter(model, LoRAConfig(rank=8), name="legal")   # the base is frozen, the adapter learns
print(adapters.report())
...                                                               # train as any model
save_adapter(model, "legal/", "legal")                            # a folder that peft loads
merge(model)                                                      # the weights take the adapter in

configs/        the settings of each kind; import no torch
part.py         what stands at one place of a model: a part, and the layer that carries parts
plan.py         what a kind would put where; nothing is changed before all of it is known to fit
attach.py       put on, take off, choose, for a whole batch or row by row
lora.py, ...    one kind a file
merging.py      into the weights and out again
algebra.py      multiples, sums and differences
ahead.py        what stands before the text: prompts, and the positions that prefixes take
baking.py       the network that made a prompt or prefix is thrown away
files.py        adapter_config.json and adapter_model.safetensors; names.py: how modules are called there
loading.py      a folder's base with the adapter on it
"""

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "AdaLoRAConfig": "configs.adalora",
    "AdapterConfig": "config",
    "BottleneckConfig": "configs.bottleneck",
    "FusionConfig": "configs.fusion",
    "IA3Config": "configs.ia3",
    "InvertibleConfig": "configs.invertible",
    "BitFitConfig": "configs.partial",
    "LoRAConfig": "configs.lora",
    "PTuningConfig": "configs.p_tuning",
    "PTuningV2Config": "configs.prefix",
    "PartialConfig": "configs.partial",
    "PrefixConfig": "configs.prefix",
    "PromptConfig": "configs.prompt",
    "adapters_of": "attach",
    "add_adapter": "attach",
    "bake": "baking",
    "combine": "algebra",
    "extract": "algebra",
    "load_adapter": "files",
    "merge": "merging",
    "merged": "merging",
    "multiply": "algebra",
    "remove_adapter": "attach",
    "save_adapter": "files",
    "unmerge": "merging",
}

if TYPE_CHECKING:
    from groundup.adapters.algebra import combine, extract, multiply
    from groundup.adapters.attach import adapters_of, add_adapter, remove_adapter
    from groundup.adapters.baking import bake
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
    from groundup.adapters.files import load_adapter, save_adapter
    from groundup.adapters.merging import merge, merged, unmerge

__all__ = [
    "AdaLoRAConfig",
    "AdapterConfig",
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
    "adapters_of",
    "add_adapter",
    "bake",
    "combine",
    "extract",
    "load_adapter",
    "merge",
    "merged",
    "multiply",
    "remove_adapter",
    "save_adapter",
    "unmerge",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'groundup.adapters' has no attribute {name!r}")
    return getattr(importlib.import_module(f"groundup.adapters.{_HOMES[name]}"), name)
