"""The outline of a model: its parts in the order of a forward pass, with shapes, parameters, operations and memory."""

from dataclasses import dataclass

PROBE = 16
"""Tokens of the probing pass."""


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        name: dotted name within the model, or within its block.
        kind: class name.
        detail: what the class says of itself, in a few words.
        shape: of its output, with B and T for rows and tokens.
        parameters: own and inner ones.
        flops: operations of a forward pass of one token (attention scores: of `PROBE` tokens, shared among them).
        inner: parts within it that have weights.
    """

    name: str
    kind: str
    detail: str
    shape: str
    parameters: int
    flops: int
    inner: tuple["Part", ...] = ()


@dataclass(frozen=True)
class Group:
    """Blocks that follow each other and are alike.

    Attributes:
        layers: their numbers.
        parts: of one of them, in the order they run.
        layout: what the block says of its residual stream (`Block.layout`); empty where it says nothing.
    """

    layers: range
    kind: str
    parts: tuple[Part, ...]
    layout: str = ""

    @property
    def parameters(self) -> int:
        """Of one block."""
        return sum(part.parameters for part in self.parts)


@dataclass(frozen=True)
class Outline:
    """A model from ids to logits.

    Attributes:
        title: its family or size.
        before, after: parts around the blocks.
        groups: the blocks.
        parameters: all, tied ones once.
        flops: operations of a forward pass, a token, without attention scores; None where it cannot run without data.
        state_bytes: what one more token adds to the state in bf16, on average of the probe; 0 for a constant state.
        constant_state_bytes: bytes of a state that do not grow.
    """

    title: str
    before: tuple[Part, ...]
    groups: tuple[Group, ...]
    after: tuple[Part, ...]
    parameters: int
    flops: int | None = None
    state_bytes: int | None = None
    constant_state_bytes: int | None = None
