"""Families at equal size, and the benchmark that sets them side by side."""

import json

import pytest

from groundup.base.errors import UsageError
from groundup.benchmarks import families
from groundup.benchmarks.families import transformers_knows
from groundup.benchmarks.family_shapes import Size, count, equal_size, trainable_families
from groundup.benchmarks.train_cases import FamilyCase, find_case
from groundup.cli import main


@pytest.mark.parametrize("name", trainable_families())
def test_every_family_comes_in_equal_size(name):
    size = Size()
    config = equal_size(name, size)
    # widths in steps of 64 come near, whole layers less so
    near = 0.04 if config.num_hidden_layers == size.layers else 0.08
    assert count(config) == pytest.approx(size.parameters, rel=near)
    assert (config.vocab_size, config.hidden_size) == (2048, 256)


def test_a_size_that_cannot_be_is_refused_with_its_numbers():
    with pytest.raises(UsageError, match=r"llama has [\d,]+ parameters with a feed-forward width of 256"):
        equal_size("llama", Size(parameters=1_000_000))


def test_a_worker_makes_a_case_again_from_its_name():
    case = FamilyCase.make("qwen3", Size(layers=2, width=64, heads=4, parameters=400_000), batch=3)
    again = find_case(case.name)
    assert again == case
    assert again.config() == case.config()
    assert again.tokens == 3 * 256
    assert find_case("A").family == "gpt2"


def test_what_transformers_knows():
    assert transformers_knows("llama")
    assert not transformers_knows("parts")


TOY = ["--layers", "1", "--width", "32", "--heads", "2", "--vocabulary", "64", "--parameters", "20000"]


@pytest.mark.slow
def test_as_typed(capfd):
    quick = ["--rounds", "1", "--seconds", "0", "--context", "16", "--batch", "2", "--new", "4", "--json"]
    assert main(["bench", "families", "--families", "llama,gpt2", *TOY, *quick]) == 0
    rows = json.loads(capfd.readouterr().out)["results"]
    assert [(row["family"], row["what"]) for row in rows] == [
        (family, what) for family in ("llama", "gpt2") for what in ("training", "decoding")
    ]
    for row in rows:
        assert row["peer"] == "transformers"
        assert row["ours"] > 0
        assert row["ratio"] == pytest.approx(row["ours"] / row["theirs"])  # of a single round
        assert row["ratios"] == [row["ratio"], row["ratio"]]
        assert row["ratio_to_llama"] > 0
    assert rows[1]["state_bytes_per_token"] == 2 * 2 * 32


def test_ctrl_c_keeps_what_was_measured(tmp_path, monkeypatch, capsys):
    def training(case, work, known):
        if case.family == "gpt2":
            raise KeyboardInterrupt
        return families.result(case, "training", {"groundup fp32": [2.0], "transformers fp32": [1.0]}, {})

    monkeypatch.setattr(families, "training", training)
    command = ["bench", "families", *TOY, "--work", '["training"]', "--out", str(tmp_path / "found.json")]
    assert main([*command, "--families", "llama,gpt2,opt"]) == 0
    (kept,) = json.loads((tmp_path / "found.json").read_text())["results"]
    assert (kept["family"], kept["ratio"]) == ("llama", 2.0)
    assert "kept are the measurements that were done: 1" in capsys.readouterr().err
    assert main([*command, "--families", "gpt2,llama"]) == 130


def test_unknown_families_are_named(capsys):
    assert main(["bench", "families", "--families", "lama"]) == 2
    assert "Did you mean `llama`" in capsys.readouterr().err
