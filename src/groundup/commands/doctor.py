"""`groundup doctor`: is this machine and installation ready, and what to do where it is not."""

from collections import Counter
from typing import Any

from groundup.base.console import say
from groundup.commands.command import Command


class Doctor(Command):
    """Check this machine and installation: each line says what was found, and what to do where something is missing.

    Exit code 1 when something essential fails.
    """

    def run(self) -> dict[str, Any]:
        """Print a line for each check; the result holds them all."""
        from groundup.base.checkup import checks

        counts: Counter[str] = Counter()
        found = []
        for check in checks():
            counts[check.verdict] += 1
            found.append(check)
            say(f"{check.verdict:<4}  {check.name:<12}  {check.found}")
            if check.advice:
                say(f"{'':<20}{check.advice}")
        say(f"\n{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} failing")
        return {"ok": not counts["fail"], "checks": found}

    def exit_code(self, result: dict[str, Any]) -> int:
        """1 when a check failed."""
        return 0 if result["ok"] else 1
