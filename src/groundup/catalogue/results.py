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
    """One marked test: `outcome` is passed, failed, skipped, xfailed (pytest's words), or not run (deselected)."""

    __test__ = False  # pytest: this is no test class

    row: str
    test: str
    file: str
    reference: str
    outcome: str


@dataclass(frozen=True)
class Proof:
    """A row and its marked tests."""

    row: Row
    tests: tuple[TestResult, ...]

    @property
    def proven(self) -> bool:
        """At least one test ran, and every one passed: one that was skipped or left out may hold a clause."""
        return bool(self.tests) and all(test.outcome == "passed" for test in self.tests)

    @property
    def status(self) -> str:
        """`proven`; `failing`, `skipped` or `not run` where a test is, the worst of them; `missing` without any."""
        outcomes = {test.outcome for test in self.tests}
        if not outcomes:
            return "missing"
        if self.proven:
            return "proven"
        if "failed" in outcomes:
            return "failing"
        return "skipped" if outcomes - {"passed", "not run"} else "not run"


def write_results(path: Path, tests: Iterable[TestResult]) -> None:
    """Write a results file atomically, sorted by row and test."""
    ordered = sorted(tests, key=lambda test: (test.row, test.test))
    lines = ",\n".join("  " + json.dumps(asdict(test), ensure_ascii=False) for test in ordered)
    written = datetime.now(UTC).isoformat(timespec="seconds")
    write_atomic(path, f'{{\n"written": "{written}",\n"tests": [\n{lines}\n]\n}}\n')


def read_results(paths: Iterable[Path]) -> list[TestResult]:
    """The results of several files; of a test that several name, the one written last counts.

    A run that left a test out says nothing about it, so the result of an earlier run stands; where there is none the
    test is "not run".
    """
    files = sorted((_read(path) for path in paths), key=lambda data: datetime.fromisoformat(data["written"]))
    latest: dict[tuple[str, str], dict] = {}
    for test in (test for data in files for test in data["tests"]):
        key = (test["row"], test["test"])
        if key not in latest or test["outcome"] != "not run":
            latest[key] = test
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
