"""`groundup runs compare`: several runs as one table, what each costs and gains, and where their settings differ."""

import contextlib
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_settings import CliPositionalArg

from groundup.base.console import as_size, say, table
from groundup.base.errors import GroundupError
from groundup.commands.command import Command
from groundup.commands.runs import cell, flatten
from groundup.training.run import Run

CHANCE = frozenset({"training.seed", "training.out_dir", "training.resume", "data.seed", "threads"})
"""Settings that may differ between two runs of the same training."""
AVERAGED = ("loss", "validation_loss", "best_validation_loss", "tokens_per_second", "seconds", "memory")
HEADER = (
    *("run", "model", "parameters", "active", "tokens", "tokens/s", "seconds", "memory"),
    *("validation loss", "expected", "verdict"),
)


class RunsCompare(Command):
    """Several runs side by side: size, speed, memory, loss; and the settings in which they differ."""

    paths: CliPositionalArg[list[Path]]
    """The run folders."""
    merge_seeds: bool = False
    """Runs that differ in their seeds alone become one line, with the mean and the standard deviation of its losses."""
    settings: bool = True
    """Also list the settings in which the runs differ."""

    def run(self) -> Any:
        """Print results, then differing settings."""
        runs = [Entry.of(Run.open(path)) for path in self.paths]
        shown = merged(runs) if self.merge_seeds else runs
        different = differing(shown, CHANCE if self.merge_seeds else frozenset())
        say(table([row(entry.facts) for entry in shown], HEADER))
        if different and self.settings:
            rows = [[name, *map(cell, values)] for name, values in different.items()]
            say("\n" + table(rows, ("setting", *(entry.facts["id"] for entry in shown))))
        return {"runs": [entry.facts for entry in shown], "different": different}


@dataclass(frozen=True)
class Entry:
    """A line of the table: what is known of a run (or of several that are merged), and its flattened settings."""

    facts: dict[str, Any]
    settings: dict[str, Any]

    @classmethod
    def of(cls, run: Run) -> "Entry":
        """Read a run folder."""
        return cls(run.summary() | model_facts(run.final), flatten(run.config))


def model_facts(final: Path) -> dict[str, Any]:
    """Family, parameters and those that one token visits, of the model in `final`; None where it has none to count."""
    from groundup.estimates.params import active_parameters, count_parameters

    facts: dict[str, Any] = {"model": None, "parameters": None, "active": None}
    with contextlib.suppress(OSError, json.JSONDecodeError, GroundupError):
        config = json.loads((final / "config.json").read_text(encoding="utf-8"))
        facts["model"] = config.get("model_type")
        facts |= {"parameters": count_parameters(config) or None, "active": active_parameters(config) or None}
    return facts


def merged(runs: Iterable[Entry]) -> list[Entry]:
    """One entry for all runs of the same settings, seeds aside, in order of their first."""
    groups: dict[str, list[Entry]] = {}
    for entry in runs:
        same = {name: value for name, value in entry.settings.items() if name not in CHANCE}
        groups.setdefault(json.dumps(same, sort_keys=True, default=str), []).append(entry)
    return [_together(group) for group in groups.values()]


def _together(group: Sequence[Entry]) -> Entry:
    """The facts of several runs as those of one: means, the losses' standard deviation, the worst verdict."""
    first = group[0].facts
    facts = first | {"seeds": len(group)}
    for name in AVERAGED:
        values = [entry.facts[name] for entry in group if entry.facts[name] is not None]
        facts[name] = statistics.fmean(values) if values else None
    losses = [entry.facts["validation_loss"] for entry in group if entry.facts["validation_loss"] is not None]
    facts["deviation"] = statistics.stdev(losses) if len(losses) > 1 else None
    verdicts = [entry.facts["verdict"] for entry in group]
    facts["verdict"] = next((verdict for verdict in verdicts if verdict != "within"), "within")
    if len(group) > 1:
        facts["id"] = f"{first['id']} and {len(group) - 1} more"
    return Entry(facts, group[0].settings)


def differing(entries: Sequence[Entry], aside: frozenset[str]) -> dict[str, list[Any]]:
    """{setting: its value in each entry} of those that are not the same in all."""
    names = sorted({name for entry in entries for name in entry.settings} - aside)
    values = {name: [entry.settings.get(name) for entry in entries] for name in names}
    return {name: of for name, of in values.items() if any(value != of[0] for value in of)}


def row(facts: Mapping[str, Any]) -> list[str]:
    """The cells under HEADER."""
    count = {name: "-" if facts[name] is None else f"{facts[name]:,.0f}" for name in COUNTS}
    loss, deviation, expected = facts["validation_loss"], facts.get("deviation"), facts["expected"]
    return [
        facts["id"],
        facts["model"] or "-",
        *(count[name] for name in COUNTS),
        "-" if facts["memory"] is None else as_size(facts["memory"]),
        "-" if loss is None else f"{float(loss):.3f}" + (f" +- {deviation:.3f}" if deviation is not None else ""),
        "-" if expected is None else "{:g} to {:g}".format(*expected),
        facts["verdict"] or (facts["state"] if facts["state"] != "finished" else "-"),
    ]


COUNTS = ("parameters", "active", "tokens", "tokens_per_second", "seconds")
