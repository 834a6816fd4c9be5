"""Changes of a model that can be taken back: a calibration that fails leaves the model as it was."""

from types import TracebackType
from typing import Self

from torch import Tensor, nn

from groundup.replace import put


class Changes:
    """Exchanges parts and parameters of a model; inside `with`, an exception takes all of them back.

    The old ones are kept until the block ends.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self._modules: list[tuple[str, nn.Module]] = []
        self._parameters: list[tuple[nn.Module, str, nn.Parameter]] = []

    def put(self, name: str, module: nn.Module) -> None:
        """`replace.put` of a module, in every place where the old one stands."""
        old = self.model.get_submodule(name)
        if hasattr(old, "path") and not getattr(module, "path", ""):
            module.path = old.path  # type: ignore[assignment]
        module.train(old.training)
        for place, other in list(self.model.named_modules(remove_duplicate=False)):
            if other is old:
                self._modules.append((place, old))
                put(self.model, place, module)

    def set(self, module: nn.Module, leaf: str, value: Tensor) -> None:
        """Give a module another parameter."""
        old = module._parameters[leaf]
        assert old is not None
        self._parameters.append((module, leaf, old))
        module._parameters[leaf] = nn.Parameter(value.to(old.dtype), requires_grad=old.requires_grad)

    def take_back(self) -> None:
        """Undo everything, the last first."""
        for place, old in reversed(self._modules):
            put(self.model, place, old)
        for module, leaf, old in reversed(self._parameters):
            module._parameters[leaf] = old
        self._modules, self._parameters = [], []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.take_back()
