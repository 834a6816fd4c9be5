"""`groundup models list|show|verify` and `groundup export hf`, as typed."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from groundup.cli import main
from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model, load_model, save_model
from groundup.tokenizers.characters import Characters, train_characters
from groundup.tokenizers.tokenizer import SpecialNames

SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def model(vocab_size=64, seed=0):
    torch.manual_seed(seed)
    return build_model(LlamaConfig(**SHAPE, vocab_size=vocab_size, max_position_embeddings=64, initializer_range=0.5))


@pytest.fixture
def folder(tmp_path):
    """A Llama with a character tokenizer."""
    path = tmp_path / "model"
    save_model(model(), path)
    tokenizer().save_pretrained(path)
    return path


def tokenizer():
    return train_characters(
        ["The cat sat on the mat, Once upon a time."], ["<|end|>"], names=SpecialNames(eos="<|end|>")
    )


def answer(capsys, *words):
    code = main([*map(str, words)])
    caught = capsys.readouterr()
    return code, caught.out, caught.err


def answer_json(capsys, *words):
    code, out, err = answer(capsys, *words, "--json")
    return code, json.loads(out), err


# -- list --------------------------------------------------------------------------------------------------------------


def test_list_names_published_sizes_and_local_folders(folder, capsys):
    code, found, _ = answer_json(capsys, "models", "list", folder.parent)
    by_name = {row["name"]: row for row in found["published"]}
    assert code == 0
    assert by_name["gpt2"]["parameters"] == 124_439_808
    assert by_name["llama-2-70b"]["kv heads"] == 8
    (row,) = [row for row in found["local"] if row["name"] == str(folder)]
    assert row["parameters"] == model().num_parameters()
    assert row["form"] == "safetensors"
    _, out, _ = answer(capsys, "models", "list", folder.parent, "--family", "llama")
    assert "llama-65b" in out
    assert str(folder) in out
    assert "gpt2-xl" not in out
    assert answer(capsys, "models", "list", "--family", "lama")[0] == 2


def test_list_shows_what_cannot_be_read_as_such(folder, capsys):
    (folder / "model.safetensors").write_bytes(b"short")
    _, found, _ = answer_json(capsys, "models", "list", folder.parent)
    (row,) = [row for row in found["local"] if row["name"] == str(folder)]
    assert row["parameters"] is None
    assert row["form"].startswith("unreadable")


# -- show --------------------------------------------------------------------------------------------------------------


def test_show_counts_parts_and_lists_tensors(folder, capsys):
    _, found, _ = answer_json(capsys, "models", "show", folder, "--tensors")
    ours = load_model(folder)
    assert sum(found["parts"].values()) == found["parameters"] == ours.num_parameters()
    assert found["parts"]["token embedding"] == 64 * 16
    assert found["parts"]["norms"] == 5 * 16
    listed = {row["name"]: (row["dtype"], tuple(row["shape"])) for row in found["tensors"]}
    stored = load_file(folder / "model.safetensors")
    assert listed == {n: (str(t.dtype).removeprefix("torch."), tuple(t.shape)) for n, t in stored.items()}
    _, out, _ = answer(capsys, "models", "show", folder, "--tensors")
    assert "feed-forward" in out
    assert "model.layers.1.mlp.up_proj.weight" in out
    assert "24 x 16" in out


def test_show_a_published_size_and_a_lone_file(tmp_path, capsys):
    _, found, _ = answer_json(capsys, "models", "show", "gpt2")
    assert found["parameters"] == 124_439_808
    assert found["memory"]["weights in bf16"] == 2 * 124_439_808
    torch.save({"emb.weight": torch.zeros(3, 2), "blocks.0.att.time_decay": torch.zeros(2)}, tmp_path / "rwkv.pth")
    code, found, err = answer_json(capsys, "models", "show", tmp_path / "rwkv.pth", "--tensors")
    assert code == 0
    assert "RWKV" in err
    assert found["stored"] == {"tensors": 2, "bytes": {"float32": 32}}
    assert {row["name"] for row in found["tensors"]} == {"emb.weight", "blocks.0.att.time_decay"}


def test_show_what_is_not_there(tmp_path, capsys):
    code, _, err = answer(capsys, "models", "show", tmp_path / "nothing")
    assert code == 1
    assert "no model folder" in err


# -- verify ------------------------------------------------------------------------------------------------------------


def test_verify_passes_a_sound_checkpoint(folder, capsys):
    code, found, _ = answer_json(capsys, "models", "verify", folder, "--new-tokens", 8)
    assert code == 0
    assert found["passed"]
    assert found["max_difference"] < 1e-4
    assert found["tokenizer"] == "same"
    assert found["published_size"] is None
    assert found["confirms"] == []
    assert len(found["prompts"]) > 3
    assert all(check["same_greedy"] for check in found["prompts"])


def test_verify_confirms_a_row_by_the_known_text_and_not_by_shape(folder, capsys, monkeypatch):
    """Random weights of a published shape are "same shape"; those that write the known text confirm the row."""
    from groundup.commands import models_verify as models
    from groundup.commands.comparing import greedy
    from groundup.tokenizers.hub import load_tokenizer

    monkeypatch.setattr(models, "published_size", lambda config: "gpt2")
    code, out, _ = answer(capsys, "models", "verify", folder, "--new-tokens", 4)
    assert code == 0
    assert "same shape as gpt2" in out
    assert "confirms LM-10" not in out

    characters = load_tokenizer(folder)
    save_model(model(characters.vocab_size), folder)  # every id that it writes is a character
    prompt = "The cat"
    continued = characters.decode(greedy(load_model(folder), characters.encode(prompt), 5))
    monkeypatch.setitem(models.KNOWN_TEXTS, "gpt2", (prompt, continued))
    _, out, _ = answer(capsys, "models", "verify", folder, "--new-tokens", 4)
    assert "confirms LM-10" in out
    monkeypatch.setitem(models.KNOWN_TEXTS, "gpt2", (prompt, continued[:-1] + "T"))
    assert answer_json(capsys, "models", "verify", folder, "--new-tokens", 4)[1]["confirms"] == []

    monkeypatch.setattr(models, "published_size", lambda config: "llama-2-7b")
    _, found, _ = answer_json(capsys, "models", "verify", folder, "--new-tokens", 4)
    assert (found["published_size"], found["confirms"]) == ("llama-2-7b", [])


def test_verify_fails_when_the_models_differ(folder, capsys, monkeypatch):
    from groundup.layers.norms import RMSNorm

    monkeypatch.setattr(RMSNorm, "forward", lambda self, x: x * self.weight)
    code, out, _ = answer(capsys, "models", "verify", folder, "--new-tokens", 8)
    assert code == 1
    assert "DIFFERENT from transformers" in out


def test_verify_fails_when_the_tokens_differ(folder, capsys, monkeypatch):
    monkeypatch.setattr(Characters, "encode", lambda self, text, **options: [1] * len(text))
    code, found, _ = answer_json(capsys, "models", "verify", folder, "--new-tokens", 2)
    assert code == 1
    assert found["tokenizer"] == "different"


def test_verify_without_transformers_says_what_to_install(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    code, _, err = answer(capsys, "models", "verify", folder)
    assert code == 1
    assert "pip install 'groundup[dev]'" in err


def test_verify_says_how_to_verify_what_transformers_cannot_read(folder, capsys):
    torch.save(dict(load_file(folder / "model.safetensors")), folder / "model.pth")
    code, _, err = answer(capsys, "models", "verify", folder / "model.pth")
    assert code == 2
    assert "groundup export hf" in err


def test_published_sizes_are_recognised():
    from groundup.commands.models_verify import published_size
    from groundup.models.catalogue import config_of_size

    assert published_size(config_of_size("gpt2-xl")) == "gpt2-xl"
    assert published_size(config_of_size("llama-2-7b")) == "llama-2-7b"
    assert published_size(LlamaConfig(hidden_size=64)) is None


# -- export ------------------------------------------------------------------------------------------------------------


def test_export_writes_a_complete_folder(folder, tmp_path, capsys):
    out = tmp_path / "out"
    code, found, _ = answer_json(capsys, "export", "hf", folder, "--out-dir", out, "--max-shard-size", "10KB")
    assert code == 0
    assert found["self_test"]
    assert len(list(out.glob("model-*.safetensors"))) > 1
    assert {"config.json", "generation_config.json", "tokenizer.json", "model.safetensors.index.json"} <= set(
        found["files"]
    )
    ours, again = load_model(folder), load_model(out)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in ours.state_dict().items())
    assert answer(capsys, "models", "verify", out, "--new-tokens", 4)[0] == 0


def test_export_takes_the_final_model_of_a_run_and_another_dtype(folder, tmp_path, capsys):
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("seed: 0\n")
    code, _, err = answer(capsys, "export", "hf", run, "--out-dir", tmp_path / "out")
    assert code == 2
    assert "no final model yet" in err
    folder.rename(run / "final")
    assert answer(capsys, "export", "hf", run, "--out-dir", tmp_path / "out", "--dtype", "bfloat16")[0] == 0
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "bfloat16"


def test_export_keeps_generation_settings_and_fills_special_ids(folder, tmp_path, capsys):
    (folder / "generation_config.json").write_text(json.dumps({"temperature": 0.7}))
    answer(capsys, "export", "hf", folder, "--out-dir", tmp_path / "out")
    generation = json.loads((tmp_path / "out/generation_config.json").read_text())
    assert generation["temperature"] == 0.7
    assert generation["eos_token_id"] == tokenizer().eos_id is not None


def test_export_from_a_pickled_file(folder, tmp_path, capsys):
    torch.save({"model": dict(load_file(folder / "model.safetensors"))}, folder / "model.pth")
    assert answer(capsys, "export", "hf", folder / "model.pth", "--out-dir", tmp_path / "out")[0] == 0
    one, two = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "out"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_export_overwrites_only_a_model_folder_and_only_when_told(folder, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    assert answer(capsys, "export", "hf", folder, "--out-dir", out)[0] == 0  # empty: fine
    before = (out / "model.safetensors").read_bytes()
    code, _, err = answer(capsys, "export", "hf", folder, "--out-dir", out)
    assert code == 2
    assert "--overwrite" in err
    assert answer(capsys, "export", "hf", folder, "--out-dir", out, "--overwrite", "--dtype", "float16")[0] == 0
    assert (out / "model.safetensors").read_bytes() != before
    (out / "thesis.docx").write_text("years of work")
    code, _, err = answer(capsys, "export", "hf", folder, "--out-dir", out, "--overwrite")
    assert code == 2
    assert "thesis.docx" in err
    assert (out / "thesis.docx").exists()
    code, _, err = answer(capsys, "export", "hf", folder, "--out-dir", folder, "--overwrite")
    assert code == 2
    assert "the source itself" in err
    assert answer(capsys, "export", "hf", folder, "--out-dir", out / "thesis.docx")[0] == 2


def test_export_refuses_a_tokenizer_of_another_model(folder, tmp_path, capsys):
    save_model(model(vocab_size=8), tmp_path / "small")
    code, _, err = answer(
        capsys, "export", "hf", tmp_path / "small", "--out-dir", tmp_path / "out", "--tokenizer", folder
    )
    assert code == 1
    assert "the model only 8" in err
    assert not (tmp_path / "out").exists()


def test_export_without_a_tokenizer_says_so(folder, tmp_path, capsys):
    save_model(model(), tmp_path / "bare")
    code, _, err = answer(capsys, "export", "hf", tmp_path / "bare", "--out-dir", tmp_path / "out")
    assert code == 0
    assert "--tokenizer" in err
    assert answer(capsys, "export", "hf", tmp_path / "bare", "--out-dir", tmp_path / "b", "--tokenizer", folder)[0] == 0
    assert (tmp_path / "b/tokenizer.json").exists()


def test_a_failed_self_test_leaves_nothing_new(folder, tmp_path, capsys, monkeypatch):
    from groundup.base import shards

    out = tmp_path / "out"
    answer(capsys, "export", "hf", folder, "--out-dir", out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    original = shards.ShardWriter.add

    def spoil(self, name, tensor):
        original(self, name, tensor * 0 if "embed" in name else tensor)

    monkeypatch.setattr(shards.ShardWriter, "add", spoil)
    code, _, err = answer(capsys, "export", "hf", folder, "--out-dir", out, "--overwrite")
    assert code == 1
    assert "self-test failed" in err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize(("text", "size"), [("5GB", 5 * 10**9), ("1.5 mb", 1_500_000), ("10KB", 10_000), ("123", 123)])
def test_sizes(text, size):
    from groundup.commands.export import read_size

    assert read_size(text) == size


def test_a_size_that_is_none(folder, tmp_path, capsys):
    code, _, err = answer(capsys, "export", "hf", folder, "--out-dir", tmp_path / "out", "--max-shard-size", "much")
    assert code == 2
    assert "5GB" in err


def test_weights_of_another_shape_are_refused(folder, tmp_path, capsys):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = torch.zeros(17)
    save_file(tensors, folder / "model.safetensors")
    code, _, err = answer(capsys, "export", "hf", folder, "--out-dir", tmp_path / "out")
    assert code == 1
    assert "norm.weight: stored (17,), wanted (16,)" in err
    assert not (tmp_path / "out").exists()
