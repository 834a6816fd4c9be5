"""What to do with input that cannot be used: stop at once, or count it and go on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from groundup.base.console import warn
from groundup.base.errors import DataError

Policy = Literal["error", "skip"]


class ColumnError(DataError):
    """A record lacks the column that was asked for; `columns` are those of its columns that hold text."""

    def __init__(self, message: str, columns: Sequence[str] = ()):
        super().__init__(message)
        self.columns = tuple(columns)


@dataclass
class Problems:
    """Collects what is wrong with the input.

    `policy="error"` raises a `DataError` at the first problem; `"skip"` keeps the first `keep` messages, counts them
    all, and `report()` tells at the end. Files of a folder that are no text are skipped and counted under either
    policy.
    """

    policy: Policy = "error"
    keep: int = 1000
    count: int = 0
    messages: list[str] = field(default_factory=list)
    skipped_files: list[str] = field(default_factory=list)

    def add(self, where: str, what: str, error: Callable[[str], DataError] = DataError) -> None:
        """Record that the record at `where` ("file:line") cannot be used; `error` makes an exception of the message."""
        if self.policy == "error":
            raise error(f"{where}: {what}")
        self.count += 1
        if len(self.messages) < self.keep:
            self.messages.append(f"{where}: {what}")

    def skip_file(self, where: str, why: str) -> None:
        """Record a file that was left out."""
        self.skipped_files.append(f"{where}: {why}")

    def report(self) -> None:
        """Warn about what was left out; silent if nothing was."""
        if self.skipped_files:
            warn(f"{len(self.skipped_files)} files left out, such as {'; '.join(self.skipped_files[:3])}")
        if self.count:
            warn(f"{self.count} records skipped, such as {'; '.join(self.messages[:3])}")
