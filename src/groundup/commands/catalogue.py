"""`groundup catalogue`: every technique, and the test that proves it."""

from pathlib import Path
from typing import Any

from groundup.base.console import say, table
from groundup.base.errors import UsageError, did_you_mean
from groundup.catalogue.results import Proof, proofs, read_results
from groundup.catalogue.rows import all_rows, areas
from groundup.commands.command import Command

CHECKOUT = Path(__file__).resolve().parents[3]


class Catalogue(Command):
    """Every technique of the project, and the test that proves it.

    A row is proven when tests marked with its id ran and all of them passed: `make test` and `make test-all` record it.
    """

    area: str = ""
    """Show the rows of this area (TOK, DAT, LAY, ...)."""

    row: str = ""
    """Show one row with its tests: --row TOK-09."""

    results: Path | None = None
    """The results to read. Default: docs/catalogue.json and .catalogue/*.json; of several runs the latest counts."""

    def run(self) -> dict[str, Any]:
        """Print counts per area, the rows of one area, or one row's tests."""
        chosen = self.chosen()
        if self.row:
            say(describe(chosen[0]))
        elif self.area:
            say(rows_table(chosen))
        else:
            say(areas_table(chosen))
        if not any(proof.tests for proof in chosen) and not self.result_files():
            say("\nNo results yet: `make test-all` in a checkout of the project runs the proofs and writes them.")
        return {
            "proven": sum(proof.proven for proof in chosen),
            "total": len(chosen),
            "rows": [as_json(proof) for proof in chosen],
        }

    def chosen(self) -> list[Proof]:
        """The rows that were asked for, with their tests."""
        found = proofs(read_results(self.result_files()))
        if self.row:
            check_known(self.row.upper(), list(all_rows()), "row")
            return [proof for proof in found if proof.row.id == self.row.upper()]
        if self.area:
            check_known(self.area.upper(), list(areas()), "area")
            return [proof for proof in found if proof.row.area == self.area.upper()]
        return found

    def result_files(self) -> list[Path]:
        """The files to read: the one named, or those that exist."""
        if self.results:
            return [self.results]
        names = ["docs/catalogue.json", ".catalogue/results.json", ".catalogue/cuda.json"]
        return [CHECKOUT / name for name in names if (CHECKOUT / name).is_file()]


def check_known(name: str, known: list[str], what: str) -> None:
    """A `UsageError` with the nearest name when `name` is unknown."""
    if name not in known:
        raise UsageError(
            f"there is no {what} `{name}`.{did_you_mean(name, known)} `groundup catalogue` lists the areas."
        )


def areas_table(found: list[Proof]) -> str:
    """Proven and total rows of each area, and of all."""
    lines = []
    for letters, name in areas().items():
        members = [proof for proof in found if proof.row.area == letters]
        lines.append([letters, sum(proof.proven for proof in members), len(members), name])
    lines.append(["all", sum(proof.proven for proof in found), len(found), ""])
    return table(lines, ["area", "proven", "rows", "name"])


def rows_table(found: list[Proof]) -> str:
    """One line a row: its state, and the first reference it was held against."""
    lines = [[p.row.id, p.status, p.tests[0].reference if p.tests else "", p.row.title] for p in found]
    return table(lines, ["row", "state", "reference", "title"])


def describe(proof: Proof) -> str:
    """A row with all its tests."""
    head = f"{proof.row.id}: {proof.row.title}\n{areas()[proof.row.area]}; tag {proof.row.tag}; {proof.status}\n"
    if not proof.tests:
        return head + "\nNo test is marked with this row, or none has run."
    return (
        head + "\n" + table(([t.outcome, t.reference, t.test] for t in proof.tests), ["outcome", "reference", "test"])
    )


def as_json(proof: Proof) -> dict[str, Any]:
    """A row as `--json` prints it."""
    tests = [{"test": t.test, "file": t.file, "reference": t.reference, "outcome": t.outcome} for t in proof.tests]
    row = proof.row
    return {
        "id": row.id,
        "area": row.area,
        "title": row.title,
        "tag": row.tag,
        "status": proof.status,
        "proven": proof.proven,
        "tests": tests,
    }
