"""What the settings of all kinds of adapters share. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from groundup.base.config import Config

if TYPE_CHECKING:
    from groundup.adapters.plan import Plan


class AdapterConfig(Config):
    """Settings of a kind of adapter; `groundup.adapters.configs` gathers the kinds."""

    def plan(self, model: Any, name: str) -> Plan:
        """What would be put where on this model, with new weights; the model is left as it is.

        Raises:
            UsageError: it does not fit this model, by name.
        """
        raise NotImplementedError

    def needs(self) -> tuple[str, ...]:
        """Names of other adapters that this one is made of: they stay while it does."""
        return ()
