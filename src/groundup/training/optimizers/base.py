"""What the optimizers share: masters, gradients, steps and state by parameter name.

A rule is a subclass with two methods: `new_state` (tensors to begin with) and `update` (the formula, in place). `step`
calls `update` once for a whole flat buffer where the rule is element-wise and every tensor is at the same step, and
once for each tensor otherwise; state tensors are views of the same memory in both cases: both give the same numbers.

    optimizer = AdamWConfig(lr=3e-4).build(model.named_parameters())
    for micro_batch in step_batches:
        loss(micro_batch).backward()
        optimizer.gather()                                # optional: sums micro-batches in fp32
    norm = clip_gradients(optimizer.gradients(), 1.0)     # optional
    optimizer.step()
    optimizer.zero_grad()
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from groundup.base.errors import CheckpointError
from groundup.training.optimizers.storage import FlatStorage, Storage, lay_out

State = dict[str, Tensor]
Group = dict[str, Any]


class Optimizer(torch.optim.Optimizer):
    """A torch optimizer whose state is portable: keyed by parameter name, independent of the layout in memory.

    Args:
        groups: as for torch; `params` may hold (name, parameter) pairs.
        defaults: hyper-parameters for groups that do not give their own.
        flat: use flat buffers (see `storage.py`); the parameters become views of them.

    Each group also holds `initial_lr`, which schedules multiply.
    """

    def __init__(self, groups: Iterable[Any], defaults: dict[str, Any], *, flat: bool = True):
        self.storages: list[list[Storage]] = []
        self.steps: dict[str, int] = {}
        self._names: dict[Tensor, str] = {}
        self._flat_states: dict[int, State] = {}
        self._use_flat = flat
        super().__init__(groups, defaults)

    # The rule: what a subclass gives.

    def elementwise(self, group: Group) -> bool:
        """Whether the group's rule treats each element alike, so that a flat buffer may be updated in one pass."""
        return True

    def new_state(self, weight: Tensor, group: Group) -> State:
        """State before the first step; element-wise rules return tensors of the weight's shape."""
        raise NotImplementedError

    def update(self, weight: Tensor, gradient: Tensor, state: State, group: Group, step: int) -> None:
        """Change `weight` and `state` in place; leave `gradient` as it is. `step` counts from 1."""
        raise NotImplementedError

    # The machinery.

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take in a group: name its tensors, lay them out and make their state."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if "param_names" not in group:
            before = sum(len(g["params"]) for g in self.param_groups[:-1])
            group["param_names"] = [f"parameter.{before + i}" for i in range(len(group["params"]))]
        group.setdefault("initial_lr", group["lr"])
        self._names.update(zip(group["params"], group["param_names"], strict=True))
        self.steps.update(dict.fromkeys(group["param_names"], 0))
        storages = lay_out(group["params"], flat=self._use_flat)
        self.storages.append(storages)
        for storage in storages:
            self._begin(storage, group)

    @torch.no_grad()
    def _begin(self, storage: Storage, group: Group) -> None:
        if isinstance(storage, FlatStorage) and self.elementwise(group):
            flat_state = self.new_state(storage.flat_weights, group)
            self._flat_states[id(storage)] = flat_state
            cut = {key: storage.views(value) for key, value in flat_state.items()}
            states = [{key: views[i] for key, views in cut.items()} for i in range(len(storage.parameters))]
        else:
            states = [self.new_state(weight, group) for weight in storage.weights]
        for parameter, state in zip(storage.parameters, states, strict=True):
            self.state[parameter] = state

    def step(self, closure: Callable[[], Any] | None = None, *, scale: float = 1.0) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter that has a gradient; returns the closure's loss, if a closure is given.

        `scale`: what the gradients are multiplied by first (clipping, the mean of a sum).
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for storage, group in self._storages_and_groups():
                storage.gather()
                self._step_storage(storage, group | self._scaled(storage, scale))
                storage.publish()
        return loss

    scales_gradients = False
    """Whether `update` itself multiplies by `group["gradient_scale"]`, which saves a pass over memory."""

    def _scaled(self, storage: Storage, scale: float) -> Group:
        if not self.scales_gradients and scale != 1.0:
            torch._foreach_mul_(storage.gradients(), scale)
            scale = 1.0
        return {"gradient_scale": scale}

    def _step_storage(self, storage: Storage, group: Group) -> None:
        names = [self._names[p] for p in storage.parameters]
        present = storage.present()
        for name, has_gradient in zip(names, present, strict=True):
            self.steps[name] += has_gradient
        flat_state = self._flat_states.get(id(storage))
        if flat_state is not None and all(present) and len({self.steps[n] for n in names}) == 1:
            assert isinstance(storage, FlatStorage)
            self.update(storage.flat_weights, storage.flat_gradients, flat_state, group, self.steps[names[0]])
            return
        for index, (name, parameter) in enumerate(zip(names, storage.parameters, strict=True)):
            if present[index]:
                weight, gradient = storage.weights[index], storage.gradient(index)
                self.update(weight, gradient, self.state[parameter], group, self.steps[name])

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients; `.grad` becomes None."""
        for storage, _ in self._storages_and_groups():
            storage.clear()

    def gather(self) -> None:
        """Add the parameters' `.grad` to the fp32 buffers and free them: call it after each micro-batch."""
        for storage, _ in self._storages_and_groups():
            storage.gather()

    def gradients(self) -> list[Tensor]:
        """The tensors that hold the gathered gradients: for clipping, unscaling and all-reduce, in place."""
        self.gather()
        return [tensor for storage, _ in self._storages_and_groups() for tensor in storage.gradients()]

    def gradient_of(self, parameter: Tensor) -> Tensor | None:
        """A parameter's gathered gradient, a view that later steps change; None where it has none."""
        for storage, _ in self._storages_and_groups():
            for index, held in enumerate(storage.parameters):
                if held is parameter:
                    return storage.gradient(index) if storage.present()[index] else None
        return None

    def masters(self) -> dict[str, Tensor]:
        """Each parameter's master weight by name: a view that later steps change."""
        return {
            self._names[parameter]: weight
            for storage, _ in self._storages_and_groups()
            for parameter, weight in zip(storage.parameters, storage.weights, strict=True)
        }

    def adopt_parameters(self) -> None:
        """Take the parameters' values as masters: after weights were loaded into the model by other hands."""
        for storage, _ in self._storages_and_groups():
            storage.adopt()

    def state_nbytes(self) -> int:
        """Bytes of state and of fp32 masters (where these are not the parameters themselves); gradients not counted."""
        total = sum(t.numel() * t.element_size() for state in self.state.values() for t in state.values())
        for storage, _ in self._storages_and_groups():
            if storage.has_master:
                total += sum(w.numel() * w.element_size() for w in storage.weights)
        return total

    # State by name: what a checkpoint keeps.

    def state_tensors(self) -> dict[str, Tensor]:
        """State as flat `{parameter name}.{key}` tensors: `.step` (int64), `.master` (below fp32), and the rule's own.

        The tensors are views where possible: write them before the next step.
        """
        tensors: dict[str, Tensor] = {}
        for name, parameter, storage, weight in self._each():
            tensors[f"{name}.step"] = torch.tensor(self.steps[name])
            if storage.has_master:
                tensors[f"{name}.master"] = weight
            for key, value in self.state[parameter].items():
                tensors[f"{name}.{key}"] = value
        return tensors

    @torch.no_grad()
    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take back `state_tensors()` of an optimizer with the same parameter names, whatever its layout.

        A `CheckpointError` that names the difference, before anything is changed, if keys or shapes differ.
        """
        ours = self.state_tensors()
        _check_same(ours, tensors)
        for key, value in ours.items():
            name, _, field = key.rpartition(".")
            if field == "step":
                self.steps[name] = int(tensors[key])
            else:
                value.copy_(tensors[key])
        for storage, _ in self._storages_and_groups():
            storage.publish()

    def state_dict(self) -> dict[str, Any]:
        """As torch: {"state": {parameter name: {key: tensor}}, "param_groups": hyper-parameters and names}."""
        state: dict[str, dict[str, Tensor]] = {}
        for key, value in self.state_tensors().items():
            name, _, field = key.rpartition(".")
            state.setdefault(name, {})[field] = value
        groups = [{k: v for k, v in group.items() if k != "params"} for group in self.param_groups]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back `state_dict()`: state in its own dtype, and the groups' hyper-parameters."""
        groups = state_dict["param_groups"]
        if [g["param_names"] for g in groups] != [g["param_names"] for g in self.param_groups]:
            raise CheckpointError("the optimizer state has other parameter groups: build the optimizer as it was saved")
        self.load_state_tensors(
            {f"{name}.{key}": value for name, state in state_dict["state"].items() for key, value in state.items()}
        )
        for group, saved in zip(self.param_groups, groups, strict=True):
            group.update(saved)

    def _storages_and_groups(self) -> Iterator[tuple[Storage, Group]]:
        for storages, group in zip(self.storages, self.param_groups, strict=True):
            for storage in storages:
                yield storage, group

    def _each(self) -> Iterator[tuple[str, Tensor, Storage, Tensor]]:
        for storage, _ in self._storages_and_groups():
            for parameter, weight in zip(storage.parameters, storage.weights, strict=True):
                yield self._names[parameter], parameter, storage, weight


def _check_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    missing, surplus = sorted(ours.keys() - theirs.keys()), sorted(theirs.keys() - ours.keys())
    if missing or surplus:
        raise CheckpointError(
            f"the optimizer state does not fit this optimizer: {len(missing)} tensors missing {missing[:3]}, "
            f"{len(surplus)} unexpected {surplus[:3]}. Use the optimizer and model it was saved with"
        )
    for key, value in ours.items():
        if value.shape != theirs[key].shape:
            raise CheckpointError(
                f"optimizer state {key} has shape {tuple(theirs[key].shape)}, expected {tuple(value.shape)}"
            )
