"""Benchmarks: turns, medians, ratios, and what the command writes. How fast anything is, no test asks."""

import json

import pytest

from groundup.base.peak import copy_bandwidth, gemm_flops, read_bandwidth
from groundup.benchmarks import startup
from groundup.benchmarks.rounds import compare, in_turn
from groundup.commands.bench import BenchStartup, results_table


def test_cases_take_turns_and_the_order_turns_around():
    calls: list[str] = []
    cases = {name: lambda name=name: float(calls.append(name) or len(calls)) for name in "abc"}
    measured = in_turn(cases, rounds=2, warmup=1)
    assert "".join(calls) == "abccbaabc"
    assert measured == {"a": [6.0, 7.0], "b": [5.0, 8.0], "c": [4.0, 9.0]}


@pytest.mark.parametrize(
    ("higher_is_better", "variant", "ratio"),
    [(True, "compiled", 12 / 9), (False, "eager", 4 / 9)],
    ids=["speed", "time"],
)
def test_ratio_is_that_of_the_rounds_to_the_best_variant(higher_is_better, variant, ratio):
    theirs = {"eager": [3.0, 4.0, 100.0], "compiled": [8.0, 1.0, 9.0]}
    found = compare("B", "peer", [10.0, 9.0, 12.0], theirs, "tokens/s", higher_is_better=higher_is_better)
    assert (found.ours, found.variant, found.ratio) == (10.0, variant, ratio)
    assert found.theirs_variants == {"eager": 4.0, "compiled": 8.0}
    assert found.spread == pytest.approx(0.3)
    # 10/8, 9/1, 12/9 and 3/10, 4/9, 100/12, in order: a quarter lies halfway below the middle one.
    below, middle, above = (1.25, 12 / 9, 9) if higher_is_better else (0.3, 4 / 9, 100 / 12)
    assert found.ratios == pytest.approx([(below + middle) / 2, (middle + above) / 2])
    extra = compare("B", "peer", [1.0], {"x": [1.0]}, "s", higher_is_better=False, more={"loss": 2.5}).as_json()
    assert extra["loss"] == 2.5
    assert "more" not in extra


def test_startup_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(startup, "seconds_of", lambda words: {"pass": 0.02, "--help": 0.4}.get(words[-1], 0.1))
    path = tmp_path / "startup.json"
    results = BenchStartup(rounds=2, out=path).run()
    assert json.loads(path.read_text())["results"] == results["results"]
    found = {(one["case"], one["peer"]): one for one in results["results"]}
    help_row = found["groundup --help", "python (an empty program)"]
    assert (help_row["ours"], help_row["theirs"], help_row["met"]) == (0.4, 0.02, False)
    assert found["import groundup", "import torch"]["met"] is True
    assert "missed" in capsys.readouterr().out


def test_table_of_no_results():
    assert "case" in results_table([])


def test_startup_runs_an_interpreter():
    assert startup.seconds_of(["-c", "pass"]) > 0
    with pytest.raises(Exception, match="exit status 3"):
        startup.seconds_of(["-c", "raise SystemExit(3)"])


def test_machine_peaks_are_measured():
    assert gemm_flops(size=64, seconds=0.01) > 0
    assert copy_bandwidth(megabytes=1, seconds=0.01) > 0
    assert read_bandwidth(size=64, seconds=0.01) > 0
