"""`groundup runs list|show`: look into run folders; nothing is changed."""

from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_settings import CliPositionalArg

from groundup.base.console import say, table
from groundup.commands.command import Command
from groundup.training.run import Run

COLUMNS = ("id", "step", "loss", "validation_loss", "best_validation_loss", "tokens", "seconds", "state")


class RunsList(Command):
    """All runs in a folder."""

    root: Path = Path("runs")
    """Where the run folders lie."""

    def run(self) -> Any:
        """Print a table, oldest run first."""
        summaries = [run.summary() for run in Run.list(self.root)]
        say(_table(summaries) if summaries else f"no runs in {self.root}")
        return summaries


class RunsShow(Command):
    """One run: where it stands, its curve, its last samples."""

    path: CliPositionalArg[Path]
    """The run folder."""
    points: int = Field(default=10, ge=2)
    """Lines of the curve."""

    def run(self) -> Any:
        """Print it."""
        run = Run.open(self.path)
        summary, train = run.summary(), run.metrics("train")
        curve = [{k: e.get(k) for k in ("step", "loss", "lr", "grad_norm")} for e in spread(train, self.points)]
        evaluations = [{k: v for k, v in e.items() if k != "event"} for e in run.metrics("evaluate")]
        say("\n".join(f"{name:<22}{cell(value)}" for name, value in summary.items()))
        if curve:
            say("\n" + table([[cell(v) for v in row.values()] for row in curve], curve[0]))
        if evaluations:
            rows = spread(evaluations, self.points)
            say("\nvalidation\n" + table([[cell(e["step"]), cell(e.get("loss"))] for e in rows], ("step", "loss")))
        for sample in run.samples()[-3:]:
            say(f"\nstep {sample['step']}: {sample['prompt']}|{sample['text']}")
        return {"summary": summary, "curve": curve, "evaluations": evaluations, "environment": run.environment}


def _table(summaries: list[dict[str, Any]]) -> str:
    return table([[cell(summary[name]) for name in COLUMNS] for summary in summaries], COLUMNS)


def cell(value: Any) -> str:
    """A value as text in a table."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def spread(items: list[Any], count: int) -> list[Any]:
    """At most `count` of the items, evenly, the first and last among them."""
    if len(items) <= count:
        return items
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, name + ".") if isinstance(value, dict) and value else {name: value}
    return flat
