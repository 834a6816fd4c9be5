"""The benchmarks of adapters and of quantization run, on toys, and say what they leave out."""

import json

import pytest

from groundup.base.errors import UsageError
from groundup.benchmarks.adapters import METHODS, Settings, measure_methods, settings_of
from groundup.benchmarks.quantization import FORMS, measure_forms
from groundup.benchmarks.quantization import Settings as Forms
from groundup.benchmarks.story_plots import LETTERS, batch_of, batches, examples, letter_ids
from groundup.cli import main
from groundup.tokenizers.hub import load_tokenizer


def test_stories_of_the_task_end_in_a_question_with_a_letter_for_an_answer():
    tokenizer = load_tokenizer("tiny")
    found = examples(40, "train", 1, tokenizer, 128)
    letters = letter_ids(tokenizer).tolist()
    assert len(set(letters)) == len(LETTERS)
    assert {example.answer for example in found} <= set(letters)
    assert len({example.answer for example in found}) > 8
    assert max(len(example.ids) for example in found) <= 128
    batch = batch_of(found[:4])
    assert (batch["labels"] != -100).sum(1).tolist() == [1, 1, 1, 1]
    ends = batch["documents"].sum(1) - 1
    assert batch["labels"][range(4), ends].tolist() == [example.answer for example in found[:4]]
    assert next(batches(found, 8, 0))["ids"].shape[0] == 8


def test_what_is_not_known_is_refused_by_name():
    with pytest.raises(UsageError, match="Did you mean `lora`"):
        measure_methods(Settings(methods=["lorra"]))
    with pytest.raises(UsageError, match="Did you mean `int4`"):
        measure_forms(Forms(forms=["int44"]))
    assert settings_of(METHODS["adalora"].adapter, 7)["steps"] == 7
    assert FORMS["bf16"] is None


@pytest.mark.slow
@pytest.mark.row("PEFT-18", reference="property: every method runs on one task")
def test_every_method_is_measured_or_left_out_by_name(capsys):
    words = ["--steps", "2", "--tests", "8", "--case", "toy-llama", "--rounds", "1", "--seconds", "0", "--json"]
    assert main(["bench", "adapters", *words]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert {row["method"] for row in told["methods"]} == set(METHODS) - {"bitfit"}
    assert "bitfit is left out" in err  # `tiny` has no biases
    assert all(0 <= row["within"] <= 1 and row["peak_memory"] > 0 for row in told["methods"])
    assert [row["case"] for row in told["results"]][1:] == ["LoRA step", "LoRA, peak memory"]


@pytest.mark.slow
@pytest.mark.row("QNT-13", reference="property: the report of every form, of the same held-out texts")
def test_every_form_is_measured_and_fewer_bits_lose_more(capsys):
    words = ["--rows", "8", "--speed", "bf16,int8", "--layers", "1", "--width", "64", "--vocab", "64", "--rounds", "1"]
    assert main(["bench", "quantization", *words, "--new", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    rows = {row["form"]: row for row in told["forms"]}
    assert set(rows) == set(FORMS)
    assert rows["fp32"]["loss"] <= rows["int4"]["loss"] < rows["int3"]["loss"]
    assert rows["gptq 4"]["bits_per_weight"] < rows["int8"]["bits_per_weight"] < 9
    assert rows["int4"]["file_bytes"] < rows["int8"]["file_bytes"] < rows["fp32"]["file_bytes"]
