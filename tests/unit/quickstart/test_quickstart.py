"""`groundup quickstart` from the command line, small: every kind of text goes all the way to model, report and JSON."""

import json

import pytest
import torch

from groundup.cli import main
from groundup.commands import quickstart
from groundup.data.builtin import open_corpus
from groundup.models.hub import load_model
from groundup.tokenizers.hub import load_tokenizer
from groundup.training.run import Run, reproducible

TINY = "--steps 4 --layers 1 --hidden-size 32 --batch-size 2 --context-length 32 --vocab-size 300 --threads 1"
BASELINES = ["uniform over bytes", "unigram of bytes", "Kneser-Ney 5-gram", "gzip", "xz", "this model"]


@pytest.fixture(autouse=True)
def _little_text(monkeypatch):
    monkeypatch.setattr(quickstart, "STORY_DOCUMENTS", 200)
    monkeypatch.setattr(quickstart, "HELD_OUT_BYTES", 4000)
    monkeypatch.setattr(quickstart, "QUESTIONS", 4)


@pytest.fixture
def prose():
    return [document.text for document in open_corpus("stories", seed=5, split="train", bytes=60_000)]


def go(capsys, data, out, *more):
    assert main(["quickstart", "--data", str(data), "--out-dir", str(out), "--json", *TINY.split(), *more]) == 0
    return json.loads(capsys.readouterr().out)


def check(result, out, columns):
    """The JSON, what the run folder holds, the model that others load, and the report."""
    assert result["run"] == str(out)
    assert list(result["bits_per_byte"]) == BASELINES
    for name, values in result["bits_per_byte"].items():
        assert list(values) == columns
        assert all(0.3 < value < 9 for value in values.values()), name
    assert all(value == 8 for value in result["bits_per_byte"]["uniform over bytes"].values())
    run = Run(out)
    assert run.config["training"]["steps"] == 4
    assert [event["step"] for event in run.metrics("train")] == [1, 2, 3, 4]
    assert run.summary()["state"] == "finished"
    model, tokenizer = load_model(result["model"]), load_tokenizer(result["model"])
    assert model.config.num_hidden_layers == 1
    assert model.config.hidden_size == 32
    assert tokenizer.vocab_size == model.config.vocab_size == 300
    assert tokenizer.decode(tokenizer.encode("A fox, 3 owls.")) == "A fox, 3 owls."
    page = (out / "report.html").read_text(encoding="utf-8")
    assert result["report"] == str(out / "report.html")
    for name in BASELINES:
        value = result["bits_per_byte"][name][columns[0]]
        assert name in page
        assert f"{value:.3f}" in page
    return model, tokenizer


def test_stories_with_questions_and_equal_logits_in_transformers(tmp_path, capsys):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result = go(capsys, "stories", tmp_path / "run")
    model, tokenizer = check(result, tmp_path / "run", ["known worlds", "unseen worlds"])
    assert result["questions"]["guessing"] == 0.25
    assert all(share in (0, 0.25, 0.5, 0.75, 1) for share in result["questions"].values())
    assert len(result["questions"]) == 5
    theirs = AutoModelForCausalLM.from_pretrained(result["model"], dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(result["model"]).encode("One spring, in the village")
    assert ids == tokenizer.encode("One spring, in the village")
    with torch.no_grad():
        torch.testing.assert_close(model.float()(torch.tensor([ids])), theirs(torch.tensor([ids])).logits)


def test_a_file_of_ones_own(tmp_path, capsys, prose):
    (tmp_path / "mine.txt").write_text("\n\n".join(prose), encoding="utf-8")
    result = go(capsys, tmp_path / "mine.txt", tmp_path / "run")
    check(result, tmp_path / "run", ["held-out text"])
    assert result["questions"] == {}


def test_a_folder_of_ones_own(tmp_path, capsys, prose):
    for number, text in enumerate(prose):
        file = tmp_path / f"mine/{number % 3}/{number:03}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    result = go(capsys, tmp_path / "mine", tmp_path / "run")
    check(result, tmp_path / "run", ["held-out text"])


def test_english_prose(tmp_path, capsys):
    result = go(capsys, "pydocs", tmp_path / "run")
    check(result, tmp_path / "run", ["held-out text"])


def test_the_same_seed_gives_the_same_figures(tmp_path, capsys, prose):
    (tmp_path / "mine.txt").write_text("\n\n".join(prose), encoding="utf-8")
    found, events = [], []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        result = go(capsys, tmp_path / "mine.txt", tmp_path / name, "--seed", seed)
        found.append(result["bits_per_byte"]["this model"])
        events.append(reproducible(Run(tmp_path / name).metrics()))
    assert found[0] == found[1] != found[2]
    assert events[0] == events[1] != events[2]


def test_too_little_text_is_said_before_anything_is_trained(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("", encoding="utf-8")
    words = ["quickstart", "--data", str(tmp_path / "mine.txt"), "--out-dir", str(tmp_path / "run"), *TINY.split()]
    assert main(words) != 0
    assert "mine.txt" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
