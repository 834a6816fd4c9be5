"""Exact resume through the command line: GPT-2, its tokenizer, the loader of real text, evaluation and samples."""

import signal

import pytest
import torch
from safetensors.torch import load_file
from train_toy import command, start

from groundup.training.checkpoint import Checkpoints
from groundup.training.run import Run, reproducible

RECIPE = """
model: {model_type: gpt2, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, DROPOUT}
tokenizer: {kind: byte_bpe, vocab_size: 300}
data: {source: ["TEXT"], context_length: 16, split: {method: tail, validation: 0.2}}
training:
  steps: 40
  batch_size: 8
  micro_batch_size: 3
  optimizer: {lr: 0.01}
  schedule: {warmup_steps: 5}
  ema: {decay: 0.9}
  evaluate_every: 10
  sample_every: 20
  checkpoint_every: 17
  seed: 3
evaluate_batches: 2
prompts: ["the cat"]
sample_tokens: 8
"""
DROPOUT = "embd_pdrop: 0.1, attn_pdrop: 0.2, resid_pdrop: 0.3"


@pytest.fixture
def recipe(tmp_path):
    animals, deeds = ("cat", "dog", "owl", "fox", "hen"), ("sat on", "ran by", "saw", "hid in", "left")
    others = animals[::-1]
    lines = [
        f"the {a} {d} the {b} at {n} o'clock." for n, (a, d, b) in enumerate(zip(animals, deeds, others, strict=True))
    ]
    (tmp_path / "text.txt").write_text("\n".join(lines * 30), encoding="utf-8")
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.replace("TEXT", str(tmp_path / "text.txt")).replace("DROPOUT", DROPOUT), encoding="utf-8")
    return str(file)


def words(recipe, folder):
    return ["train", recipe, "--out-dir", str(folder), "--threads", "1", "--device", "cpu"]


def finish(recipe, folder):
    with pytest.raises(SystemExit) as end:
        command(words(recipe, folder))
    assert end.value.code == 0


def tensors(folder):
    """Every tensor of the last checkpoint (weights, optimizer, average) and of the final model."""
    files = [*(folder / "checkpoints/step-000040").glob("*.safetensors"), folder / "final/model.safetensors"]
    assert {file.stem for file in files} >= {"model", "optimizer", "ema"}
    return {(file.parent.name, file.stem, name): t for file in files for name, t in load_file(file).items()}


@pytest.mark.row("OPT-19", reference="property")
@pytest.mark.slow
def test_17_steps_kill_23_steps_equal_40_steps_bit_for_bit(recipe, tmp_path):
    """In the middle of the second epoch, with dropout, accumulation and an average of the weights."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(recipe, whole)
    process = start(command, words=words(recipe, broken), events={"kill_at": 18})
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    saved = Checkpoints(broken / "checkpoints").load()
    assert saved.step == 17
    finish(recipe, broken)

    epochs = [event["epoch"] for event in Run(whole).metrics("train")]
    assert epochs[16] == epochs[17] == 1, "step 17 is within the second epoch"
    assert reproducible(Run(whole).metrics()) == reproducible(Run(broken).metrics())
    assert len(Run(broken).metrics("train")) == 40
    assert len(Run(broken).metrics("evaluate")) == 5
    assert [s["text"] for s in Run(whole).samples()] == [s["text"] for s in Run(broken).samples()]
    expected, found = tensors(whole), tensors(broken)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
