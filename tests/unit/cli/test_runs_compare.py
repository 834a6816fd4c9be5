"""`groundup runs compare` on run folders written by hand, so that every cell is known."""

import json

import pytest
import yaml

from groundup.cli import main
from groundup.training.run import Run

DENSE = {
    **{"model_type": "llama", "vocab_size": 10, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2},
    **{"num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": False},
}
MIXTURE = DENSE | {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 1}
# embedding and head, two layers of attention and two norms, the last norm
AROUND = 2 * 10 * 8 + 2 * (4 * 8 * 8 + 2 * 8) + 8
EXPERT = 3 * 8 * 12


@pytest.fixture
def write(tmp_path):
    """Make a run folder; its path as text."""

    def make(name, loss, model=None, rates=(10.0, 50.0, 30.0), memory=2_000_000, ended=True, **settings):
        run = Run(tmp_path / name)
        run.path.mkdir()
        config = {"training": {"seed": 0, "steps": 3, "out_dir": name}, "data": {"seed": 0}, "model": {"width": 1}}
        for setting, value in settings.items():
            part, _, leaf = setting.partition("_")
            config = config | {part: config.get(part, {}) | {leaf: value}}
        run.config_path.write_text(yaml.safe_dump(config))
        for step, rate in enumerate(rates, 1):
            numbers = {"loss": 9.0, "tokens": step * 1000, "tokens_per_second": rate, "memory": memory}
            run.append({"step": step, "event": "train", "time": float(step), **numbers})
        run.append({"step": 3, "event": "evaluate", "time": 3.5, "loss": loss})
        if ended:
            run.append({"step": 3, "event": "stop", "time": 4.0, "reason": "finished"})
        if model is not None:
            run.final.mkdir()
            (run.final / "config.json").write_text(json.dumps(model))
        return str(run.path)

    return make


def lines(capsys):
    """The printed rows as lists of cells."""
    return [[cell for cell in line.split("  ") if cell] for line in capsys.readouterr().out.splitlines()]


def test_what_each_model_costs_and_gains(write, capsys):
    band = {"expected_steps": 3, "expected_validation_loss": [1.0, 2.0]}
    dense = write("dense", 1.5, DENSE, **band)
    mixture = write("mixture", 2.5, MIXTURE, **band)
    assert main(["runs", "compare", dense, mixture, "--no-settings"]) == 0
    header, _, first, second = [[cell.strip() for cell in line] for line in lines(capsys)]
    assert header[-4:] == ["memory", "validation loss", "expected", "verdict"]
    count = f"{AROUND + 2 * EXPERT:,}"
    assert first == ["dense", "llama", count, count, "3,000", "30", "4", "2 MB", "1.500", "1 to 2", "within"]
    gates = 2 * 4 * 8
    total, active = AROUND + gates + 2 * 4 * EXPERT, AROUND + gates + 2 * EXPERT
    assert second[1:4] == ["mixtral", f"{total:,}", f"{active:,}"]
    assert second[-3:] == ["2.500", "1 to 2", "above"]


def test_runs_that_differ_in_seeds_alone_become_one_line(write, capsys):
    band = {"expected_steps": 3, "expected_validation_loss": [1.0, 2.0]}
    paths = [write(f"a{seed}", 1.0 + seed, DENSE, training_seed=seed, data_seed=seed, **band) for seed in (0, 1, 2)]
    other = write("b", 7.0, DENSE, model_width=2)
    assert main(["runs", "compare", *paths, other, "--merge-seeds", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    first, second = done["runs"]
    assert (first["id"], first["seeds"], first["validation_loss"], first["deviation"]) == ("a0 and 2 more", 3, 2.0, 1.0)
    assert first["verdict"] == "above"  # one of the three ended at 3
    assert (second["id"], second["seeds"], second["validation_loss"], second["deviation"]) == ("b", 1, 7.0, None)
    # the seeds and folders of those that were merged are told nowhere
    assert done["different"] == {
        "expected.steps": [3, None],
        "expected.validation_loss": [[1.0, 2.0], None],
        "model.width": [1, 2],
    }
    assert main(["runs", "compare", *paths, "--merge-seeds"]) == 0
    assert "2.000 +- 1.000" in capsys.readouterr().out


def test_a_run_that_is_not_over_shows_what_there_is(write, capsys):
    path = write("young", 1.5, ended=False, expected_steps=3, expected_validation_loss=[1.0, 2.0])
    assert main(["runs", "compare", path]) == 0
    row = [cell.strip() for cell in lines(capsys)[2]]
    assert row == ["young", "-", "-", "-", "3,000", "30", "4", "2 MB", "1.500", "1 to 2", "unfinished"]


def test_metrics_of_an_older_run_have_no_memory(write, capsys):
    path = write("old", 1.5, memory=None)
    assert main(["runs", "compare", path]) == 0
    assert [cell.strip() for cell in lines(capsys)[2]][-4:] == ["-", "1.500", "-", "-"]
