"""How the modules that adapters stand on are called elsewhere, through the family's weight map.

The matrices of an adapter follow those of the base through the map's operation. Where one matrix of theirs holds
several of ours one below another (GPT-2's c_attn holds q, k and v), W = [W_q; W_k; W_v], then

    theirs -> ours    B A = [B_q; B_k; B_v] A         every part gets A, and its own rows of B
    ours -> theirs    [B_q    ] [A_q]                 A's one below another, B's in blocks
                      [   B_k ] [A_k]
                      [      B_v] [A_v]
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from groundup.base.errors import CheckpointError, GroundupError
from groundup.weights import Chain, Operation, Rule, Transpose, WeightMap

PREFIX = "base_model.model."
"""What peft's names of tensors begin with."""


class NoPeftForm(GroundupError):
    """An adapter that peft's files cannot hold."""


class Names:
    """The two names of every module of a model.

    Args:
        model: of a family with a weight map.

    Raises:
        NoPeftForm: the family has none.
    """

    def __init__(self, model: Any):
        try:
            self.map: WeightMap = type(model).weight_map(model.config)
        except (NotImplementedError, AttributeError):
            raise NoPeftForm(f"{type(model).__name__} has no names elsewhere") from None
        self.modules = {name: module for name, module in model.named_modules() if ".adapters." not in name}
        self._checked: dict[int, bool] = {}

    def rule_of_ours(self, module: str) -> Rule:
        """The rule that a module of ours belongs to."""
        rule = self.map.rule_of_ours(module)
        if rule is None:
            raise NoPeftForm(f"{module} has no name of its own elsewhere")
        return rule

    def rule_of_theirs(self, module: str) -> Rule | None:
        """The rule that a module of theirs belongs to; None where this model has no such module."""
        rule = self.map.rule_of_theirs(module)
        return rule if rule is not None and all(ours in self.modules for ours in rule.ours) else None

    def theirs(self, module: str) -> str:
        """What the module that holds this one of ours is called."""
        rule = self.rule_of_ours(module)
        if len(rule.theirs) != 1:
            raise NoPeftForm(f"{module} is spread over {len(rule.theirs)} modules elsewhere")
        return rule.theirs[0]

    def all_theirs(self) -> list[str]:
        """Every module of theirs that this model has, as far as rules know it."""
        rules = (self.map.rule_of_ours(name) for name in self.modules if name)
        return list(dict.fromkeys(theirs for rule in rules if rule is not None for theirs in rule.theirs))

    def join(self, rule: Rule, parts: Sequence[Tensor]) -> Tensor:
        """Tensors that follow the rows of our matrices, (out_i, ...), as one that follows those of theirs."""
        (joined,) = rule.operation.save(list(parts))
        return joined.mT if transposes(rule.operation) and joined.ndim == 2 else joined

    def split(self, rule: Rule, tensor: Tensor) -> list[Tensor]:
        """The inverse of `join`: (out, ...) -> (out_i, ...) for every module of ours in the rule."""
        stored = tensor.mT if transposes(rule.operation) and tensor.ndim == 2 else tensor
        try:
            return rule.operation.load([stored])
        except (RuntimeError, CheckpointError) as error:
            raise CheckpointError(f"{rule.theirs[0]}: shape {tuple(tensor.shape)} does not fit: {error}") from None

    def check_rows(self, rule: Rule, shapes: Sequence[tuple[int, ...]]) -> None:
        """Make sure that the rule only moves rows, so that what is true of W is true of B.

        Args:
            rule: which.
            shapes: (out_i, in) of each matrix, more for stacked ones.
        """
        if len(rule.theirs) != 1 or any(len(shape) != 2 for shape in shapes):
            raise NoPeftForm(f"{rule.ours[0]} is no single matrix elsewhere")
        key = id(rule.operation)
        if key not in self._checked:
            self._checked[key] = self._moves_rows(rule, shapes)
        if not self._checked[key]:
            raise NoPeftForm(f"{rule.theirs[0]} holds {rule.ours[0]} in another form than row by row")

    def _moves_rows(self, rule: Rule, shapes: Sequence[tuple[int, ...]]) -> bool:
        """Whether b a, joined and taken apart, is the b of each part times the same a."""
        # whole numbers whose products are exact in float16, of which a large matrix takes little
        generator = torch.Generator().manual_seed(0)
        b = [torch.randint(-8, 9, (rows, 1), generator=generator).half() for rows, _ in shapes]
        a = torch.randint(-8, 9, (1, shapes[0][1]), generator=generator).half()
        try:
            back = self.split(rule, self.join(rule, b) * a)
        except (RuntimeError, ValueError, GroundupError):
            return False
        return all(
            torch.equal(got, wanted) or torch.allclose(got, wanted)
            for got, wanted in ((got, part * a) for got, part in zip(back, b, strict=True))
        )


def transposes(operation: Operation) -> bool:
    """Whether an operation turns matrices, as GPT-2's Conv1D asks for."""
    if isinstance(operation, Chain):
        return sum(transposes(each) for each in operation.operations) % 2 == 1
    return isinstance(operation, Transpose)
