"""What every command shares."""

from typing import Any

from pydantic import Field

from groundup.base.config import Config


class Command(Config):
    """A verb of the command line. `run` does the work, speaks through `say`, and returns what `--json` prints."""

    as_json: bool = Field(default=False, alias="json")
    """Print the result as JSON on stdout; everything else goes to stderr."""

    def run(self) -> Any:
        """Do it; the result (JSON-able, or None) is what `--json` prints."""
        raise NotImplementedError
