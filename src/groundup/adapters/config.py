"""What the settings of all kinds of adapters share. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from groundup.base.config import Config

if TYPE_CHECKING:
    from torch import Tensor

    from groundup.adapters.plan import Plan


@dataclass
class InPeft:
    """An adapter in peft's form.

    Attributes:
        values: of adapter_config.json; `peft_type` and the base's name are added by `files`.
        tensors: of adapter_model.safetensors, under peft's names.
        notes: of the file's header: what only groundup reads.
    """

    values: dict[str, Any]
    tensors: dict[str, Tensor]
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass
class FromPeft(InPeft):
    """What a folder in peft's form holds; every tensor is finite.

    Attributes:
        folder: where, for messages.
        name: what the adapter will be called.
    """

    folder: Path = Path()
    name: str = "default"


@dataclass
class Loaded:
    """An adapter that was read: settings, parts with their weights in them, and its version of the base's tensors."""

    config: AdapterConfig
    plan: Plan
    base: dict[str, Tensor] = field(default_factory=dict)


class AdapterConfig(Config):
    """Settings of a kind of adapter; `groundup.adapters.configs` gathers the kinds."""

    peft_type: ClassVar[str] = ""
    """What peft calls this kind; empty where it has none. See the top of `adapters/files.py`."""

    def plan(self, model: Any, name: str) -> Plan:
        """What would be put where on this model, with new weights; the model is left as it is.

        Raises:
            UsageError: it does not fit this model, by name.
        """
        raise NotImplementedError

    def to_peft(self, model: Any, name: str) -> InPeft:
        """The adapter `name` of a model in peft's form.

        Raises:
            NoPeftForm: peft cannot hold this one; it is then written in groundup's own layout.
        """
        raise NotImplementedError

    @classmethod
    def from_peft(cls, model: Any, given: FromPeft) -> Loaded:
        """The inverse of `to_peft`; the model is left as it is.

        Raises:
            CheckpointError: a setting, name or shape that does not fit, named.
        """
        raise NotImplementedError
