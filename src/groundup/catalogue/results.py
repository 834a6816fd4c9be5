"""What the tests said of each row, written by the pytest plugin and read by `groundup catalogue`.

A results file is JSON: {"written": "2026-01-31T12:00:00+00:00", "tests": [one TestResult, ...]}.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from groundup.base.errors import DataError
from groundup.base.files import write_atomic
from groundup.catalogue.rows import Row, all_rows


@dataclass(frozen=True)
class TestResult:
    """One marked test: `outcome` is passed, failed, skipped, or xfailed (pytest's words)."""

    __test__ = False  # pytest: this is no test class

    row: str
    test: str
    file: str
    reference: str
    outcome: str


@dataclass(frozen=True)
class Proof:
    """A row and the marked tests that ran for it."""

    row: Row
    tests: tuple[TestResult, ...]

    @property
    def proven(self) -> bool:
        """At least one test ran, and every one passed: a skip hides a clause of the row, so it proves nothing."""
        return bool(self.tests) and all(test.outcome == "passed" for test in self.tests)

    @property
    def status(self) -> str:
        """`proven`; `failing` or `skipped` where a test is; `missing` without any test."""
        outcomes = {test.outcome for test in self.tests}
        if not outcomes:
            return "missing"
        if self.proven:
            return "proven"
        return "failing" if "failed" in outcomes else "skipped"


def write_results(path: Path, tests: Iterable[TestResult]) -> None:
    """Write a results file atomically, sorted by row and test."""
    ordered = sorted(tests, key=lambda test: (test.row, test.test))
    lines = ",\n".join("  " + json.dumps(asdict(test), ensure_ascii=False) for test in ordered)
    written = datetime.now(UTC).isoformat(timespec="seconds")
    write_atomic(path, f'{{\n"written": "{written}",\n"tests": [\n{lines}\n]\n}}\n')


def read_results(paths: Iterable[Path]) -> list[TestResult]:
    """The results of several files; of a test that several name, the one written last counts."""
    files = sorted((_read(path) for path in paths), key=lambda data: datetime.fromisoformat(data["written"]))
    latest = {(test["row"], test["test"]): test for data in files for test in data["tests"]}
    return [TestResult(**test) for test in latest.values()]


def _read(path: Path) -> dict:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        datetime.fromisoformat(data["written"])
        for test in data["tests"]:
            TestResult(**test)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not a results file of the catalogue ({error}): write it with `make test-all`"
        ) from None
    return data


def proofs(tests: Iterable[TestResult]) -> list[Proof]:
    """Every row of the table with its tests, in the table's order; results of unknown rows are dropped."""
    by_row: dict[str, list[TestResult]] = {}
    for test in tests:
        by_row.setdefault(test.row, []).append(test)
    return [Proof(row, tuple(by_row.get(row.id, ()))) for row in all_rows().values()]
