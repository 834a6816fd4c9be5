"""Pytest: `@pytest.mark.row("TOK-09", reference="tokenizers")` says what a test proves; `--catalogue PATH` records.

A marked test that was deselected (`-m "not slow"`) is recorded as "not run". An unknown row id, or a marker without a
reference, stops the collection. Works under pytest-xdist: what a marker says travels with the test's report, and the
controlling process writes the file.
"""

from pathlib import Path
from typing import Any, cast

import pytest

from groundup.base.errors import did_you_mean
from groundup.catalogue.results import TestResult, write_results
from groundup.catalogue.rows import all_rows

PROPERTY = "catalogue_row"
NOT_RUN = pytest.StashKey[set[tuple[str, str, str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option `--catalogue`."""
    parser.addoption("--catalogue", metavar="PATH", help="write what each marked test proves to this JSON file")


def pytest_configure(config: pytest.Config) -> None:
    """Begin to listen when a file is asked for; workers only hand their reports on."""
    path = config.getoption("--catalogue")
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(Path(path)), "groundup-catalogue-recorder")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Check every marker, and attach what it says to the test's reports."""
    problems = []
    for item in items:
        for mark in item.iter_markers("row"):
            problem = marker_problem(mark)
            if problem:
                problems.append(f"{item.nodeid}: {problem}")
            else:
                item.user_properties.append((PROPERTY, [mark.args[0], mark.kwargs["reference"]]))
    if problems:
        raise pytest.UsageError("\n".join(dict.fromkeys(problems)))


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Note the marked tests that this run leaves out."""
    for item in items:
        marks = [mark for mark in item.iter_markers("row") if not marker_problem(mark)]
        noted = item.config.stash.setdefault(NOT_RUN, set())
        noted.update((mark.args[0], mark.kwargs["reference"], item.nodeid) for mark in marks)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist hands its notes on."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[PROPERTY] = [list(key) for key in session.config.stash.get(NOT_RUN, set())]


def marker_problem(mark: pytest.Mark) -> str:
    """What is wrong with a `row` marker, or an empty string."""
    if len(mark.args) != 1 or set(mark.kwargs) != {"reference"}:
        return 'write @pytest.mark.row("TOK-09", reference="the independent library, or published: ...")'
    row, reference = mark.args[0], mark.kwargs["reference"]
    if row not in all_rows():
        return f"there is no row {row!r}.{did_you_mean(str(row), all_rows())} The rows: groundup/catalogue/rows.json"
    if not isinstance(reference, str) or not reference.strip():
        return f"row {row}: the reference is empty; name what the test holds the code against"
    return ""


class Recorder:
    """Gathers the reports of marked tests and writes them when the session ends."""

    def __init__(self, path: Path):
        self.path = path
        self.outcomes: dict[tuple[str, str, str], str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Setup, call and teardown each report once: the worst of them is the test's outcome."""
        for name, value in report.user_properties:
            if name != PROPERTY:
                continue
            row, reference = cast("list[str]", value)
            key = (row, reference, report.nodeid)
            before = self.outcomes.get(key, "passed")
            self.outcomes[key] = max(before, outcome(report), key=SEVERITY.index)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker has ended: take its notes of what was left out."""
        for row, reference, nodeid in getattr(node, "workeroutput", {}).get(PROPERTY, []):
            self.outcomes.setdefault((row, reference, nodeid), "not run")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the file."""
        for key in session.config.stash.get(NOT_RUN, set()):
            self.outcomes.setdefault(key, "not run")
        write_results(
            self.path,
            [
                TestResult(row, nodeid, nodeid.partition("::")[0], reference, outcome)
                for (row, reference, nodeid), outcome in self.outcomes.items()
            ],
        )


SEVERITY = ["passed", "xfailed", "skipped", "failed"]


def outcome(report: pytest.TestReport) -> str:
    """The report's outcome; a test that is expected to fail proves nothing, whether it fails or passes."""
    return "xfailed" if hasattr(report, "wasxfail") else report.outcome
