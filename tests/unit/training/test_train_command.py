import json

import pytest

from groundup.cli import main
from groundup.training.run import Run

RECIPE = """
model: {model_type: gpt2, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2}
tokenizer: {kind: characters, special_tokens: ["<|endoftext|>"]}
data: {source: ["TEXT"], context_length: 16, split: {method: tail, validation: 0.2}}
training: {steps: 6, batch_size: 4, evaluate_every: 3, checkpoint_every: 3, optimizer: {lr: 0.01}}
evaluate_batches: 2
sample_tokens: 8
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat on the mat and the dog ran. " * 60)
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.replace("TEXT", str(tmp_path / "text.txt")))
    return str(file)


def test_recipe_to_final_folder_and_the_runs_commands(recipe, tmp_path, capsys):
    out = tmp_path / "runs/one"
    assert main(["train", recipe, "--out-dir", str(out), "--threads", "1", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["step"] == 6
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in (out / "final").iterdir()}
    assert [e["step"] for e in Run(out).metrics("evaluate")] == [0, 3, 6]
    assert Run(out).metrics("evaluate")[0].keys() >= {"loss", "bits_per_byte"}
    assert Run(out).config["training"]["out_dir"] == str(out)
    other = str(tmp_path / "runs/two")
    assert main(["train", recipe, "--out-dir", other, "--threads", "1", "--training.optimizer.lr", "0.02"]) == 0
    capsys.readouterr()

    assert main(["runs", "list", "--root", str(tmp_path / "runs"), "--json"]) == 0
    assert [run["id"] for run in json.loads(capsys.readouterr().out)] == ["one", "two"]
    assert main(["runs", "show", str(out), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["curve"]) == 6
    assert main(["runs", "compare", str(out), other, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["different"]["training.optimizer.lr"] == [0.01, 0.02]


def test_dry_run_shows_what_would_happen_and_writes_nothing(recipe, tmp_path, capsys):
    assert main(["train", recipe, "--out-dir", str(tmp_path / "run"), "--dry-run", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["config"]["training"]["steps"] == 6
    assert shown["parameters"] > 1000
    assert shown["memory_bytes"] > 4 * shown["parameters"]
    assert "cat" in "".join(shown["first_batch"])
    assert not (tmp_path / "run").exists()


def test_missing_data_is_a_usage_error_that_names_the_file(recipe, capsys):
    assert main(["train", recipe, "--data.source", "../nowhere/x.txt"]) == 2
    assert "no data at ../nowhere/x.txt" in capsys.readouterr().err


def test_help_needs_no_torch():
    import subprocess
    import sys

    code = "import sys, groundup.commands.train, groundup.commands.runs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
