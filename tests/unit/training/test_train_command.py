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
GROUPED = "num_key_value_heads: 1, head_dim: 8, intermediate_size: 24"
MEMORIES = "linear_num_key_heads: 1, linear_num_value_heads: 2, linear_key_head_dim: 8, linear_value_head_dim: 8"
MULTIPLIERS = "head_dim: 8, ffn_multipliers: 2.0, qkv_multipliers: 1.0, num_gqa_groups: 1"
FEW_EXPERTS = "num_experts: 4, num_experts_per_tok: 2, moe_intermediate_size: 8, shared_expert_intermediate_size: 8"
# What families without attention have in its place,
SHAPES = {
    "awd_lstm": "hidden_size: 16, num_hidden_layers: 2, embedding_size: 8",
    "bengio": "hidden_size: 16, order: 4, embedding_size: 8",
    "elmo": "hidden_size: 8, num_hidden_layers: 2, cell_size: 16, filters: [[1, 4], [3, 6]]",
    "ngram": "order: 3",
    "rnn": "hidden_size: 16, num_hidden_layers: 1, cell: gru",
    "mamba": "hidden_size: 16, num_hidden_layers: 1, state_size: 4",
    "mamba2": f"{SHAPE}, head_dim: 16, state_size: 4, n_groups: 1",
    # and what others need besides, or have not
    "rwkv": "hidden_size: 16, num_hidden_layers: 1",
    "rwkv2": "hidden_size: 16, num_hidden_layers: 1",
    "rwkv3": "hidden_size: 16, num_hidden_layers: 1",
    "gptj": f"{SHAPE}, rotary_dim: 4",
    **dict.fromkeys(("openai-gpt", "bloom", "glm_2021"), SHAPE),
    "openelm": f"hidden_size: 16, num_hidden_layers: 1, {MULTIPLIERS}",
    "qwen3_5_text": f"{SHAPE}, {GROUPED}, {MEMORIES}",
    "qwen3_next": f"{SHAPE}, {GROUPED}, {MEMORIES}, {FEW_EXPERTS}",
    "qwen3_5_moe_text": f"{SHAPE}, num_key_value_heads: 1, head_dim: 8, {MEMORIES}, {FEW_EXPERTS}",
    "qwen": f"{SHAPE}, head_dim: 8, intermediate_size: 24",
    **dict.fromkeys(("gemma2", "gemma3_text", "gemma4_text", "gpt_oss", "mixtral", "qwen3_moe"), f"{SHAPE}, {GROUPED}"),
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
    assert {size["family"] for size in found["published"]} == ({family} if FAMILIES[family].config.sizes else set())
    assert main(["estimate", "params", str(out / "final"), "--json"]) == 0
    estimated = json.loads(capsys.readouterr().out)["total"]
    assert estimated == load_model(out / "final").num_parameters()


def test_dry_run_shows_what_would_happen_and_writes_nothing(recipe, tmp_path, capsys):
    assert main(["train", recipe, "--out-dir", str(tmp_path / "run"), "--dry-run", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["config"]["training"]["steps"] == 6
    assert shown["parameters"] > 1000
    assert shown["memory_bytes"] > 4 * shown["parameters"]
    # characters: as many as the text has, with the special token
    assert shown["tokenizer"] == {"kind": "characters", "trained": False, "vocab_size": 15, "exact": False}
    assert shown["first_batch"] is None
    assert shown["first_texts"][0].startswith("the cat")
    assert not (tmp_path / "run").exists()
    # with a tokenizer that is there: what the model would see
    assert main(["train", recipe, "--tokenizer-from", "tiny", "--dry-run", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert "cat" in "".join(shown["first_batch"])
    assert "tokenizer" not in shown


def test_a_dry_run_trains_no_tokenizer(recipe, capsys, monkeypatch):
    """The size is reckoned with the vocabulary that is asked for; it is what the training then has."""
    from groundup.tokenizers.registry import ByteBPEConfig

    Path(recipe).write_text(Path(recipe).read_text().replace("kind: characters", "kind: byte_bpe, vocab_size: 265"))
    shown = estimate(recipe, capsys)
    assert shown["tokenizer"] == {"kind": "byte_bpe", "trained": False, "vocab_size": 265, "exact": True}
    assert main(["train", recipe, "--out-dir", str(Path(recipe).parent / "run"), "--threads", "1", "--json"]) == 0
    capsys.readouterr()
    assert load_model(Path(recipe).parent / "run/final").num_parameters() == shown["parameters"]
    # a run that has its tokenizer already shows its batch
    kept = estimate(recipe, capsys, "--out-dir", str(Path(recipe).parent / "run"))
    assert kept["first_batch"]
    assert kept["parameters"] == shown["parameters"]

    def refuse(*given, **more):
        raise AssertionError("a tokenizer was trained")

    monkeypatch.setattr(ByteBPEConfig, "train", refuse)
    assert main(["train", recipe, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "tokenizer: `byte_bpe` would be trained first, on " in out
    assert "the figures above are for 265 ids\n" in out
    assert "begins: 'the cat sat" in out
    assert main(["train", recipe, "--dry-run", "--model.vocab-size", "20"]) == 2
    assert "model.vocab_size 20 is below the tokenizer's 265" in capsys.readouterr().err


def test_a_dry_run_of_characters_looks_at_a_bounded_part_of_the_text(recipe, capsys, monkeypatch):
    from groundup.commands import train

    monkeypatch.setattr(train, "SAMPLED_TEXT", 4)
    assert main(["train", recipe, "--dry-run"]) == 0
    assert "the figures above are for 5 ids for the first 4 characters alone" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["/proc/groundup", "text.txt", "text.txt/below", "a" * 300])
def test_a_run_folder_that_cannot_be_written_is_said_first(recipe, capsys, monkeypatch, place):
    from groundup.commands.train import Train

    monkeypatch.chdir(Path(recipe).parent)
    monkeypatch.setattr(Train, "make_tokenizer", lambda self: pytest.fail("work before the check"))
    before = sorted(Path().iterdir())
    for more in ((), ("--dry-run",)):
        assert main(["train", recipe, "--out-dir", place, *more]) == 1
        assert f"cannot write {place}: " in capsys.readouterr().err
    assert sorted(Path().iterdir()) == before


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
