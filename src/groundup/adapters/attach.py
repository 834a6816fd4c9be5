"""Put adapters on a model, take them off, choose which act."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from groundup.adapters.ahead import Prompts
from groundup.adapters.config import AdapterConfig
from groundup.adapters.part import Adapted, Selection, adapted, plain
from groundup.adapters.plan import Plan, is_base
from groundup.base.errors import UsageError, did_you_mean
from groundup.replace import put


class Adapters:
    """The adapters of one model, `model.adapters`.

    Attributes:
        configs: name -> its settings, in the order in which they came.
        selection: which act.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.configs: dict[str, AdapterConfig] = {}
        self.plans: dict[str, Plan] = {}
        self.selection = Selection()
        self._learned = {id(p): p.requires_grad for p in model.parameters()}
        self._tensors: dict[
            str, dict[str, Tensor]
        ] = {}  # adapter -> name of a base tensor -> the version that is not in use

    def __deepcopy__(self, memo: Any) -> "Adapters":
        return self

    # -- putting on and taking off ------------------------------------------------------------------------------------

    def add(self, name: str, config: AdapterConfig, plan: Plan | None = None, trainable: bool = True) -> None:
        """See `add_adapter`. `plan`: with weights in it already, as from a file."""
        if not name.isidentifier():
            raise UsageError(f"`{name}` is no name for an adapter: letters, digits and _ are, and no digit first")
        if name in self.configs:
            raise UsageError(f"the model has an adapter `{name}` already: remove it, or choose another name")
        if self.merged:
            raise UsageError(f"`{self.merged[0]}` is merged into the weights: unmerge it before another one is added")
        plan = config.plan(self.model, name) if plan is None else plan
        self._check(name, plan)
        if not self.configs:
            for parameter in self.model.parameters():
                parameter.requires_grad_(False)
        modules = dict(self.model.named_modules())
        for where, part in plan.parts.items():
            layer = modules[where]
            if not isinstance(layer, Adapted):
                layer = adapted(layer, self.selection, where)
                put(self.model, where, layer)
            part.train(self.model.training)
            layer.adapters[name] = part  # type: ignore[index]
        if plan.prompt is not None:
            if self.model.prompt is None:
                self.model.prompt = Prompts(self.selection)
            self.model.prompt.add(name, plan.prompt)  # type: ignore[operator]
        self.activate()
        known = dict(self.model.named_parameters())
        self._tensors[name] = {tensor: known[tensor].detach().clone() for tensor in plan.tensors}
        self.configs[name], self.plans[name] = config, plan
        self.selection.names = (name,)
        self.train_only(name) if trainable else self.freeze(name)

    def _check(self, name: str, plan: Plan) -> None:
        if not (plan.parts or plan.tensors or plan.prompt):
            raise UsageError(f"adapter `{name}` would change nothing of this model")
        known = dict(self.model.named_parameters())
        unknown = [tensor for tensor in plan.tensors if tensor not in known]
        if unknown:
            raise UsageError(f"adapter `{name}` names tensors that the model lacks: {', '.join(unknown[:5])}")
        for other, theirs in self.plans.items():
            shared = sorted({*theirs.tensors} & {*plan.tensors})
            if shared:
                raise UsageError(
                    f"`{name}` and `{other}` would both have their own {shared[0]}: an adapter that trains the base's "
                    "own tensors cannot stand beside another that trains the same ones"
                )

    def remove(self, name: str) -> None:
        """Take an adapter off; with the last one the model is what it was before the first."""
        self.check_known(name)
        for other, config in self.configs.items():
            if name in config.needs():
                raise UsageError(f"`{other}` is made of `{name}`: remove `{other}` first")
        for where in self.plans[name].parts:
            layer: Any = self.model.get_submodule(where)
            if name in layer.merged:
                raise UsageError(f"`{name}` is merged into the weights: unmerge it first")
        if name in self.selection.names:
            self.activate(*(other for other in self.selection.names if other != name))
        self.freeze(name)  # the base's tensors that it trained stay, others may learn beside them
        for where in self.plans[name].parts:
            layer = self.model.get_submodule(where)
            del layer.adapters[name]
            if not len(layer.adapters):
                put(self.model, where, plain(layer))
        if self.plans[name].prompt is not None:
            self.model.prompt.remove(name)  # type: ignore[operator]
            if not len(self.model.prompt):  # type: ignore[arg-type]
                self.model.prompt = None  # type: ignore[assignment]
        del self.configs[name], self.plans[name], self._tensors[name]
        if not self.configs:
            for parameter in self.model.parameters():
                parameter.requires_grad_(self._learned.get(id(parameter), True))

    # -- choosing -----------------------------------------------------------------------------------------------------

    def activate(self, *names: str) -> None:
        """Let these adapters act, in this order, and no others; with none, the model is its base."""
        for name in names:
            self.check_known(name)
        changing = {*self.selection.names} ^ {*names}
        if stuck := [name for name in self.merged if name in changing]:
            raise UsageError(f"`{stuck[0]}` is merged into the weights and cannot be switched: unmerge it first")
        for name in changing:
            self._swap(name)
        self.selection.names, self.selection.rows = names, None

    @property
    def merged(self) -> tuple[str, ...]:
        """The adapters that the weights have taken in, in their order."""
        layers = [m for m in self.model.modules() if isinstance(m, Adapted)]
        return tuple(dict.fromkeys(name for layer in layers for name in layer.merged))

    def _swap(self, name: str) -> None:
        """Exchange the base's own tensors for an adapter's version of them, or back."""
        known = dict(self.model.named_parameters())
        for tensor, other in self._tensors[name].items():
            now = known[tensor].detach().clone()
            known[tensor].data.copy_(other)
            self._tensors[name][tensor] = now

    @contextlib.contextmanager
    def using(self, *names: str) -> Iterator[None]:
        """Let these adapters act while this is open."""
        before, rows = self.selection.names, self.selection.rows
        self.activate(*names)
        try:
            yield
        finally:
            self.activate(*before)
            self.selection.rows = rows

    @contextlib.contextmanager
    def for_rows(self, names: Sequence[str | None]) -> Iterator[None]:
        """Let row b of the batches go through adapter names[b] alone while this is open (None: the base)."""
        distinct = list(dict.fromkeys(name for name in names if name is not None))
        if self.merged:
            raise UsageError(f"`{self.merged[0]}` is merged into the weights and acts on every row: unmerge it first")
        for name in distinct:
            self.check_known(name)
            if self.plans[name].tensors:
                raise UsageError(f"`{name}` has the base's tensors in its own version: it serves whole batches only")
        before = self.selection.names, self.selection.rows
        device = next(self.model.parameters()).device
        numbers = [-1 if name is None else distinct.index(name) for name in names]
        self.activate(*distinct)
        self.selection.rows = torch.tensor(numbers, device=device)
        try:
            yield
        finally:
            self.activate(*before[0])
            self.selection.rows = before[1]

    def train_only(self, *names: str, base: bool = False) -> None:
        """Let these adapters learn, and nothing else but the base where `base` says so."""
        for name in names:
            self.check_known(name)
        for tensor, parameter in self.model.named_parameters():
            parameter.requires_grad_(base and is_base(tensor) and parameter.is_floating_point())
        for name in names:
            for parameter in self.parameters(name).values():
                parameter.requires_grad_(parameter.is_floating_point())

    def freeze(self, *names: str) -> None:
        """Let these adapters learn no more."""
        for name in names:
            for parameter in self.parameters(name).values():
                parameter.requires_grad_(False)

    def check_known(self, name: str) -> None:
        """Raise a `UsageError` unless the model has an adapter of this name."""
        if name not in self.configs:
            there = ", ".join(self.configs) or "none"
            raise UsageError(f"the model has no adapter `{name}`.{did_you_mean(name, self.configs)} It has: {there}")

    # -- looking ------------------------------------------------------------------------------------------------------

    def parameters(self, name: str) -> dict[str, nn.Parameter]:
        """An adapter's own parameters by their names in the model, and the base's tensors that it trains."""
        self.check_known(name)
        known = dict(self.model.named_parameters())
        found = {tensor: known[tensor] for tensor in self.plans[name].tensors}
        for where, part in self.plans[name].parts.items():
            found |= {f"{where}.adapters.{name}.{leaf}": p for leaf, p in part.named_parameters()}
        prompt = self.plans[name].prompt
        if prompt is not None:
            found |= {f"prompt.{name}.{leaf}": p for leaf, p in prompt.named_parameters()}
        return found

    def tensors(self, name: str) -> dict[str, Tensor]:
        """What an adapter has learned or counted: `parameters`, and the buffers of its parts, by name."""
        found: dict[str, Tensor] = dict(self.parameters(name))
        if name not in self.selection.names:  # the model holds the base's version of what this adapter trains
            found |= self._tensors[name]
        for where, part in self.plans[name].parts.items():
            found |= {f"{where}.adapters.{name}.{leaf}": buffer for leaf, buffer in part.named_buffers()}
        return found

    def report(self) -> str:
        """What learns, of how much: `lora `default`: 294,912 of 124,734,720 parameters learn (0.236 %)`."""
        lines = []
        base = sum(p.numel() for n, p in self.model.named_parameters() if is_base(n))
        base += sum(getattr(module, "packed_numbers", 0) for module in self.model.modules())
        for name, config in self.configs.items():
            own = self.parameters(name).values()
            learn = sum(p.numel() for p in own if p.requires_grad)
            added = sum(p.numel() for leaf, p in self.parameters(name).items() if leaf not in self.plans[name].tensors)
            kind = getattr(config, "kind", type(config).__name__)
            lines.append(
                f"{kind} `{name}`: {learn:,} of {base + added:,} parameters learn ({learn / (base + added):.3%})"
            )
        return "\n".join(lines)


def adapters_of(model: nn.Module) -> Adapters:
    """The adapters of a model; none at first."""
    found = model.__dict__.get("adapters")
    if found is None:
        found = model.__dict__["adapters"] = Adapters(model)
    return found


def add_adapter(model: nn.Module, config: AdapterConfig, name: str = "default", *, trainable: bool = True) -> Adapters:
    """Put a new adapter on a model and let it act; the base is frozen.

    Args:
        model: changed in place, and only when everything fits.
        config: which kind, and how large.
        name: what it is called; letters, digits and _.
        trainable: whether it learns (then nothing else does) or only acts.

    Returns:
        The model's adapters: `report`, `activate`, `using`, `for_rows`, `train_only`, `remove`.

    Raises:
        UsageError: it does not fit the model, or the name is taken; the model is as it was.
    """
    found = adapters_of(model)
    found.add(name, config, trainable=trainable)
    return found


def remove_adapter(model: nn.Module, name: str = "default") -> None:
    """Take an adapter off."""
    adapters_of(model).remove(name)
