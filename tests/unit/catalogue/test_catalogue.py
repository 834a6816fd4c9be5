"""The catalogue: its table, what the plugin records, what counts as proof, and what the command shows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import groundup
from groundup.base.errors import DataError, UsageError
from groundup.catalogue.results import TestResult, proofs, read_results, write_results
from groundup.catalogue.rows import all_rows, areas
from groundup.commands.catalogue import Catalogue

SUITE = """
import pytest

@pytest.mark.row("TOK-01", reference="hand calculation")
@pytest.mark.row("TOK-02", reference="regex")
def test_good(): pass

@pytest.mark.row("TOK-02", reference="regex")
@pytest.mark.parametrize("x", [1, 2])
def test_one_of_two(x): assert x == 1

@pytest.mark.row("TOK-03", reference="regex")
def test_skipped(): pytest.skip("no data")

@pytest.mark.row("TOK-04", reference="regex")
@pytest.mark.xfail
def test_unexpected_pass(): pass

@pytest.fixture
def broken():
    yield
    raise RuntimeError

@pytest.mark.row("TOK-05", reference="regex")
def test_broken_teardown(broken): pass

def test_unmarked(): pass

@pytest.mark.row("TOK-06", reference="regex")
def test_fast(): pass

@pytest.mark.row("TOK-06", reference="regex")
@pytest.mark.slow
def test_slow(): pass

@pytest.mark.slow
def test_slow_and_unmarked(): pass
"""


def run_pytest(folder: Path, suite: str, *options: str) -> subprocess.CompletedProcess:
    (folder / "test_suite.py").write_text(suite)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n row: the row\n slow: the time\n")
    plugins = ["-p", "groundup.catalogue.pytest_plugin", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", *plugins, *options]
    environment = os.environ | {"PYTHONPATH": str(Path(groundup.__file__).parents[1])}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def status(path: Path) -> dict[str, str]:
    return {proof.row.id: proof.status for proof in proofs(read_results([path]))}


def test_table_is_complete():
    rows = all_rows()
    assert len(rows) == 521
    assert {row.area for row in rows.values()} == set(areas())
    for letters in areas():
        numbers = [int(row.id.partition("-")[2]) for row in rows.values() if row.area == letters]
        assert numbers == list(range(1, len(numbers) + 1))
    assert all(row.title and row.tag[0] in "SLX" for row in rows.values())


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "xdist"])
def test_plugin_records_outcomes(tmp_path, options):
    path = tmp_path / "deep" / "results.json"
    run_pytest(tmp_path, SUITE, "--catalogue", str(path), *options)
    tests = read_results([path])
    assert {(test.row, test.outcome) for test in tests if "test_good" in test.test} == {
        ("TOK-01", "passed"),
        ("TOK-02", "passed"),
    }
    assert all(test.file == "test_suite.py" for test in tests)
    found = status(path)
    assert found["TOK-01"] == "proven"
    assert found["TOK-02"] == "failing"
    assert found["TOK-03"] == "skipped"
    assert found["TOK-04"] == "skipped"
    assert found["TOK-05"] == "failing"
    assert found["TOK-06"] == "proven"
    assert found["TOK-07"] == "missing"


@pytest.mark.parametrize(
    "options",
    [pytest.param((), id="one process"), pytest.param(("-n", "2"), id="xdist", marks=pytest.mark.slow)],
)
def test_what_a_run_leaves_out_is_recorded_and_withholds_the_proof(tmp_path, options):
    fast, full = tmp_path / "fast.json", tmp_path / "full.json"
    run_pytest(tmp_path, SUITE, "--catalogue", str(fast), "-m", "not slow", *options)
    outcomes = {(test.test.partition("::")[2], test.outcome) for test in read_results([fast]) if test.row == "TOK-06"}
    assert outcomes == {("test_fast", "passed"), ("test_slow", "not run")}
    assert status(fast)["TOK-06"] == "not run"
    assert status(fast)["TOK-02"] == "failing"
    run_pytest(tmp_path, SUITE, "--catalogue", str(full), *options)
    assert status(full)["TOK-06"] == "proven"


@pytest.mark.parametrize("earlier", ["passed", "failed"])
def test_an_earlier_result_stands_where_a_later_run_left_the_test_out(tmp_path, earlier):
    full, fast = tmp_path / "full.json", tmp_path / "fast.json"
    for path, outcome, day in [(full, earlier, 1), (fast, "not run", 2)]:
        write_results(path, [TestResult("TOK-01", "t.py::test", "t.py", "x", outcome)])
        path.write_text(json.dumps(json.loads(path.read_text()) | {"written": f"2026-01-0{day}T00:00:00+00:00"}))
    assert [test.outcome for test in read_results([fast, full])] == [earlier]
    assert [test.outcome for test in read_results([fast])] == ["not run"]


@pytest.mark.parametrize(
    ("mark", "expected"),
    [
        ('row("TOK-99", reference="x")', "no row 'TOK-99'"),
        ('row("TOK-01")', "reference="),
        ('row("TOK-01", reference=" ")', "reference is empty"),
        ('row("TOK-01", "TOK-02", reference="x")', "write @pytest.mark.row"),
    ],
)
def test_wrong_markers_stop_the_collection(tmp_path, mark, expected):
    done = run_pytest(tmp_path, f"import pytest\n@pytest.mark.{mark}\ndef test_it(): pass\n")
    assert done.returncode != 0
    assert expected in done.stdout + done.stderr


def test_the_later_result_counts(tmp_path):
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    for path, outcome, written in [
        (first, "failed", "2026-01-02T00:00:00+00:00"),
        (second, "passed", "2026-01-01T00:00:00+00:00"),
    ]:
        write_results(path, [TestResult("TOK-01", "t.py::test", "t.py", "x", outcome)])
        data = json.loads(path.read_text()) | {"written": written}
        path.write_text(json.dumps(data))
    assert [test.outcome for test in read_results([first, second])] == ["failed"]
    assert [test.outcome for test in read_results([second, first])] == ["failed"]


def test_damaged_results_are_named(tmp_path):
    path = tmp_path / "results.json"
    for text in ["{", "[]", '{"tests": []}', '{"written": "2026-01-01T00:00:00+00:00", "tests": [{"row": "TOK-01"}]}']:
        path.write_text(text)
        with pytest.raises(DataError, match=r"results\.json"):
            read_results([path])


def test_command(tmp_path, capsys):
    path = tmp_path / "results.json"
    write_results(path, [TestResult("TOK-09", "t.py::test_merges", "t.py", "tokenizers", "passed")])
    everything = Catalogue(results=path).run()
    assert (everything["proven"], everything["total"]) == (1, 521)
    assert Catalogue(results=path, area="tok").run()["total"] == 23
    capsys.readouterr()
    one = Catalogue(results=path, row="TOK-09").run()
    assert one["rows"][0]["tests"][0]["reference"] == "tokenizers"
    assert "t.py::test_merges" in capsys.readouterr().out


def test_command_says_what_is_near(tmp_path):
    path = tmp_path / "results.json"
    write_results(path, [])
    with pytest.raises(UsageError, match="TOK"):
        Catalogue(results=path, area="TOKS").run()
    with pytest.raises(UsageError, match="no row"):
        Catalogue(results=path, row="TOK-99").run()
