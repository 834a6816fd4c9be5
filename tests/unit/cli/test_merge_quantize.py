"""`groundup train --adapter`, `merge` and `quantize`, from the command line to files that load."""

import json

import pytest
import torch

from groundup.cli import main
from groundup.models.hub import load_model
from groundup.tokenizers.hub import load_tokenizer
from groundup.training.checkpoint import Checkpoints

LENGTH = {"data.context_length": 64, "training.steps": 3, "training.batch-size": 2, "training.evaluate-every": 3}


def train(out_dir, *more):
    """The result of a short training of an adapter on `tiny`."""
    words = [word for name, value in LENGTH.items() for word in (f"--{name}", str(value))]
    words += ["--data.source", "pydocs", "--data.limit", "40", "--prompts", "The", "--sample-tokens", "3"]
    return main(["train", "--init-from", "tiny", *words, "--out-dir", str(out_dir), *more])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose final/ is a LoRA."""
    folder = tmp_path_factory.mktemp("runs") / "lora"
    assert train(folder, "--adapter.kind", "lora", "--adapter.rank", "4", "--training.optimizer.lr", "0.01") == 0
    return folder


@pytest.mark.row("PEFT-10", reference="the same model unmerged")
def test_a_run_leaves_an_adapter_that_loads_with_its_base(run):
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {path.name for path in (run / "final").iterdir()}
    model, base = load_model(run / "final"), load_model("tiny")
    ids = torch.arange(20)[None]
    assert not torch.equal(model(ids), base(ids))
    model.adapters.activate()
    assert torch.equal(model(ids), base(ids))
    assert load_tokenizer(run / "final").encode("a word") == load_tokenizer("tiny").encode("a word")


def test_a_run_stands_for_its_final_model(run, tmp_path, capsys):
    words = ["--json", "--max-new-tokens", "4", "--temperature", "0", "One day"]
    said = []
    for model in (run, run / "final"):
        assert main(["generate", str(model), *words]) == 0
        said.append(json.loads(capsys.readouterr().out)["completions"])
    assert said[0] == said[1]
    (tmp_path / "config.yaml").write_text("{}")
    assert main(["generate", str(tmp_path), "One day"]) == 2
    assert "no final model yet" in capsys.readouterr().err


def test_the_budget_of_adalora_follows_the_training(tmp_path, capsys):
    assert (
        train(tmp_path / "run", "--adapter.kind", "adalora", "--adapter.rank", "2", "--adapter.target-rank", "1") == 0
    )
    assert load_model(tmp_path / "run/final").adapters.configs["default"].steps == 3


def test_checkpoints_keep_what_learns_and_resuming_ends_the_same(run, tmp_path):
    saved = Checkpoints(run / "checkpoints").load()
    assert saved.tensors["model"]
    assert all(".adapters.default." in name for name in saved.tensors["model"])
    other = tmp_path / "again"
    lora = ["--adapter.kind", "lora", "--adapter.rank", "4", "--training.optimizer.lr", "0.01"]
    assert train(other, *lora) == 0
    again = Checkpoints(other / "checkpoints").load()
    assert all(torch.equal(again.tensors["model"][name], tensor) for name, tensor in saved.tensors["model"].items())


def test_an_adapter_is_trained_further(run, tmp_path, capsys):
    words = ["train", "--init-from", str(run / "final"), "--data.source", "pydocs", "--data.limit", "40"]
    words += ["--data.context_length", "64", "--training.steps", "2", "--training.batch-size", "2", "--prompts", "The"]
    assert main([*words, "--sample-tokens", "2", "--out-dir", str(tmp_path / "more")]) == 0
    assert "lora `default`" in capsys.readouterr().out
    assert (tmp_path / "more/final/adapter_model.safetensors").is_file()


def test_merged_it_is_a_plain_model_that_says_the_same(run, tmp_path, capsys):
    target = tmp_path / "merged"
    assert main(["merge", str(run), "--out-dir", str(target), "--dtype", "float32", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["similarity"] > 0.9999
    ids = torch.arange(20)[None]
    merged, separate = load_model(target), load_model(run / "final", dtype="float32")
    torch.testing.assert_close(merged(ids), separate(ids), rtol=1e-4, atol=1e-4)
    assert main(["merge", str(run), "--out-dir", str(target)]) == 2
    assert "not empty" in capsys.readouterr().err


def test_a_merged_folder_that_says_something_else_is_not_kept(run, tmp_path, capsys, monkeypatch):
    from groundup.models import hub

    save = hub.save_model

    def broken(model, folder):
        model.lm_head.weight.data.neg_()
        save(model, folder)

    monkeypatch.setattr(hub, "save_model", broken)
    assert main(["merge", str(run), "--out-dir", str(tmp_path / "merged")]) == 1
    assert "self-test failed" in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()


def test_what_is_no_adapter_is_refused_by_name(tmp_path, capsys):
    assert main(["merge", "tiny", "--out-dir", str(tmp_path / "x")]) == 2
    assert "tiny holds no adapter" in capsys.readouterr().err
    assert train(tmp_path / "y", "--quantization.kind", "nf4") == 2
    assert "put an adapter on them" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_an_adapter_on_a_base_in_four_bits_is_trained_and_names_its_base(tmp_path, capsys):
    assert train(tmp_path / "q", "--adapter.kind", "lora", "--quantization.kind", "nf4") == 0
    told = capsys.readouterr().out
    assert "bits a weight" in told
    assert "lora `default`" in told
    model = load_model(tmp_path / "q/final")
    assert model.adapters.configs["default"].kind == "lora"
    assert f"of {model.num_parameters():,} parameters learn" in told  # packed numbers count


@pytest.mark.parametrize(("kind", "settings"), [("int4", []), ("gptq", ["--method.group-size", "8"])])
def test_a_quantized_folder_loads_and_says_nearly_the_same(kind, settings, tmp_path, capsys):
    words = ["quantize", "tiny", "--out-dir", str(tmp_path / kind), "--method.kind", kind, *settings]
    assert main([*words, "--samples", "4", "--sample-tokens", "64", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bits_per_weight"] < 9
    assert told["loss_after"] < told["loss_before"] + 0.2
    assert load_tokenizer(tmp_path / kind).vocab_size == 1024
    assert main(words) == 2  # the folder is not empty


def test_what_is_no_plain_model_is_not_quantized(run, tmp_path, capsys):
    words = ["--out-dir", str(tmp_path / "x"), "--method.kind", "int8"]
    assert main(["quantize", str(run), *words]) == 2
    assert "merge them" in capsys.readouterr().err
    assert main(["export", "hf", str(run), "--out-dir", str(tmp_path / "y")]) == 2
    assert "groundup merge" in capsys.readouterr().err
    assert (
        main(["quantize", "tiny", "--out-dir", str(tmp_path / "small"), "--method.kind", "int4", "--samples", "2"]) == 0
    )
    assert main(["quantize", str(tmp_path / "small"), *words]) == 2
    assert "in fewer bits already" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_methods_that_are_not_known_or_no_such_thing_are_refused(tmp_path, capsys):
    assert main(["quantize", "tiny", "--out-dir", str(tmp_path / "x"), "--method.kind", "nf3"]) == 2
    assert "Did you mean `nf4`" in capsys.readouterr().err
    assert main(["quantize", "tiny", "--out-dir", str(tmp_path / "x"), "--method.kind", "aware"]) == 2
    assert "a way of training" in capsys.readouterr().err
