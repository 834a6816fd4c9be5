"""Throw away the network that made a prompt or a prefix; what it made stays, and gives the same outputs."""

from typing import Any

from groundup.adapters.attach import adapters_of
from groundup.adapters.configs.prompt import PromptConfig
from groundup.adapters.p_tuning import PromptEncoder
from groundup.adapters.prefix import Prefix, Taken, Trunk


def bake(model: Any, name: str = "default") -> None:
    """Replace a prompt's or prefix's network by its results; an adapter without one stays as it is.

    Afterwards the vectors (or keys and values) themselves are the parameters.

    Raises:
        UsageError: the model has no such adapter.
    """
    adapters = adapters_of(model)
    learning = any(p.requires_grad for p in adapters.parameters(name).values())
    plan = adapters.plans[name]
    if isinstance(plan.prompt, PromptEncoder):
        plan.prompt = plan.prompt.baked()
        adapters.configs[name] = PromptConfig(length=plan.prompt.inserted, init="random")
    elif isinstance(plan.prompt, Trunk):
        plan.prompt = Taken(plan.prompt.taken)
        adapters.configs[name] = adapters.configs[name].model_copy(update={"projection": False})
        for where, part in plan.parts.items():
            assert isinstance(part, Prefix)
            layer: Any = model.get_submodule(where)
            plan.parts[where] = layer.adapters[name] = part.baked()
    else:
        return
    model.prompt.add(name, plan.prompt)
    for parameter in adapters.parameters(name).values():
        parameter.requires_grad_(learning)
