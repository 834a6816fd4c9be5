import html
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from groundup.cli import main
from groundup.models.catalogue import FAMILIES
from groundup.models.hub import load_model
from groundup.pages.run_report import made_by
from groundup.training.run import Run

RECIPE = """
model: {model_type: gpt2, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2}
tokenizer: {kind: characters, special_tokens: ["<|endoftext|>"]}
data: {source: ["TEXT"], context_length: 16, split: {method: tail, validation: 0.2}}
training: {steps: 6, batch_size: 4, evaluate_every: 3, checkpoint_every: 3, optimizer: {lr: 0.01}}
evaluate_batches: 2
sample_tokens: 8
"""


SHAPE = "hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2"
# What families without attention have in its place.
SHAPES = {
    "awd_lstm": "hidden_size: 16, num_hidden_layers: 2, embedding_size: 8",
    "bengio": "hidden_size: 16, order: 4, embedding_size: 8",
    "elmo": "hidden_size: 8, num_hidden_layers: 2, cell_size: 16, filters: [[1, 4], [3, 6]]",
    "ngram": "order: 3",
    "rnn": "hidden_size: 16, num_hidden_layers: 1, cell: gru",
}


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


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_and_is_read_again(family, recipe, tmp_path, capsys):
    out, text = tmp_path / "run", Path(recipe).read_text()
    shape = SHAPES.get(family, f"{SHAPE}, intermediate_size: 24")
    Path(recipe).write_text(text.replace("model_type: gpt2", f"model_type: {family}").replace(SHAPE, shape))
    assert main(["train", recipe, "--out-dir", str(out), "--threads", "1", "--training.steps", "3", "--json"]) == 0
    capsys.readouterr()
    assert main(["models", "list", str(out), "--family", family, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {model["family"] for model in found["local"] if model["name"].startswith(str(out))} == {family}
    assert {size["family"] for size in found["published"]} == {family}
    assert main(["estimate", "params", str(out / "final"), "--json"]) == 0
    estimated = json.loads(capsys.readouterr().out)["total"]
    assert estimated == load_model(out / "final").num_parameters()


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


def estimate(recipe, capsys, *words):
    assert main(["train", recipe, *words, "--dry-run", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_memory_estimate_counts_what_the_optimizer_and_the_average_keep(recipe, capsys):
    plain = estimate(recipe, capsys, "--training.optimizer.kind", "sgd", "--training.optimizer.momentum", "0")
    number = 4 * plain["parameters"]  # bytes of an fp32 number for each
    momentum = estimate(recipe, capsys, "--training.optimizer.kind", "sgd", "--training.optimizer.momentum", "0.9")
    assert momentum["memory_bytes"] - plain["memory_bytes"] == number
    adam = estimate(recipe, capsys)
    assert adam["memory_bytes"] - plain["memory_bytes"] == 2 * number
    average = estimate(recipe, capsys, "--training.ema.decay", "0.99")
    assert average["memory_bytes"] - adam["memory_bytes"] == number


def test_a_training_begins_with_its_memory_estimate(recipe, tmp_path, capsys):
    assert main(["train", recipe, "--out-dir", str(tmp_path / "run"), "--threads", "1", "--training.keep", "3"]) == 0
    assert "memory, about: " in capsys.readouterr().out
    # ... and ends with checkpoints whose mean can be exported
    run, out = tmp_path / "run", tmp_path / "mean"
    assert main(["export", "hf", str(run), "--average", "2", "--out-dir", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["averaged"] == ["step-000003", "step-000006"]
    from groundup.models.hub import load_model

    mean = load_model(out).state_dict()
    saved = [load_file(run / f"checkpoints/step-00000{step}/model.safetensors") for step in (3, 6)]
    for name, first in saved[0].items():
        torch.testing.assert_close(mean[name], (first + saved[1][name]) / 2)
    assert main(["export", "hf", str(run), "--average", "5", "--out-dir", str(tmp_path / "five")]) == 2
    assert "holds 2 checkpoints, not 5" in capsys.readouterr().err
    # the report names the command that env.json keeps
    report = (run / "report.html").read_text()
    assert made_by(Run(run).environment) in html.unescape(report)
    assert "runs show" not in report


def test_quickstart_dry_run_dtype_and_resume(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("the cat sat on the mat and the dog ran away from it. " * 400)
    words = [
        "quickstart",
        "--data",
        str(tmp_path / "text.txt"),
        "--out-dir",
        str(tmp_path / "run"),
        "--vocab-size",
        "300",
    ]
    words += ["--hidden-size", "32", "--layers", "1", "--context-length", "32", "--threads", "1"]
    assert main([*words, "--dry-run", "--json", "--dtype", "bf16", "--resume", "none"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["config"]["training"]["precision"]["dtype"] == "bf16"
    assert shown["config"]["training"]["resume"] == "none"
    assert "cat" in "".join(shown["first_batch"])
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("{}")
    assert main([*words, "--resume", "none"]) == 2
    assert "holds a run already" in capsys.readouterr().err
