"""Errors a user can act on: each says what is wrong, where, and what to do next.

The command line turns them into one message and an exit code; a library caller catches `GroundupError`.
"""

import difflib
from collections.abc import Iterable


class GroundupError(Exception):
    """Anything the user can mend. `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(GroundupError):
    """A wrong flag, key or combination of settings."""

    exit_code = 2


class DataError(GroundupError):
    """Input data that cannot be used; the message names the file and the line."""

    exit_code = 3


class NotFiniteError(GroundupError):
    """A loss, gradient or weight became NaN or infinite and the policy says stop."""

    exit_code = 4


class CheckpointError(GroundupError):
    """A model folder or checkpoint that is incomplete, damaged or unsafe."""


class MissingDependency(GroundupError):
    """An optional library is not installed; the message holds the line that installs it."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(f"{purpose} needs `{package}`: pip install 'groundup[{extra}]'")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """' Did you mean `x`?' or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean `{close[0]}`?" if close else ""
