"""Model folders with faults, through load_model: each is refused with what, where and what to do, before allocation."""

import json

import pytest
import torch

from groundup.base.errors import CheckpointError, GroundupError
from groundup.models.configs.gpt2 import GPT2Config
from groundup.models.configs.llama import LlamaConfig
from groundup.models.formats.formats import open_weights
from groundup.models.hub import build_model, load_model, save_model

GPT2 = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 20}
LLAMA = {**GPT2, "intermediate_size": 24, "num_key_value_heads": 1}


@pytest.fixture(params=["gpt2", "llama"])
def folder(request, tmp_path):
    """A sound folder of the family, in two shards."""
    torch.manual_seed(0)
    config = GPT2Config(**GPT2, max_position_embeddings=32) if request.param == "gpt2" else LlamaConfig(**LLAMA)
    save_model(build_model(config), tmp_path, max_shard_bytes=6_000)
    assert (tmp_path / "model.safetensors.index.json").exists()
    load_model(tmp_path)
    return tmp_path


@pytest.fixture
def gpt2(tmp_path):
    save_model(build_model(GPT2Config(**GPT2, max_position_embeddings=32)), tmp_path)
    return tmp_path


@pytest.fixture
def llama(tmp_path):
    save_model(build_model(LlamaConfig(**LLAMA)), tmp_path)
    return tmp_path


def change(folder, file="config.json", **values):
    path = folder / file
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def reason(folder, error=CheckpointError):
    with pytest.raises(error) as caught:
        load_model(folder)
    return str(caught.value)


def test_unknown_keys_have_a_hint(folder):
    change(folder, num_hiden_layers=2)
    assert "num_hiden_layers. Did you mean `num_hidden_layers`?" in reason(folder)


def test_harmless_keys_are_kept(folder):
    change(folder, use_cache=False, transformers_version="9.9")
    assert load_model(folder).config.to_hf()["transformers_version"] == "9.9"


def test_an_unknown_family_names_the_known_ones(folder):
    change(folder, model_type="lama")
    assert "`lama` is not a known family. Did you mean `llama`?" in reason(folder)
    change(folder, model_type=...)
    assert "has no `model_type`" in reason(folder)


@pytest.mark.parametrize("value", [2**40, 0, -1])
def test_absurd_sizes(llama, value):
    change(llama, hidden_size=value)
    assert "`hidden_size`" in reason(llama)


def test_sizes_that_are_absurd_only_together(llama):
    change(llama, hidden_size=2**20, intermediate_size=2**23, num_hidden_layers=2**14, head_dim=64)
    assert "parameters" in reason(llama)


@pytest.mark.parametrize(
    ("key", "value"),
    [("hidden_size", "16"), ("hidden_size", 16.5), ("hidden_size", [16]), ("rms_norm_eps", "small"), ("hidden_act", 3)],
)
def test_wrong_types(llama, key, value):
    change(llama, **{key: value})
    assert f"`{key}`" in reason(llama, GroundupError)


def test_numbers_that_are_not_finite(llama):
    text = (llama / "config.json").read_text()
    (llama / "config.json").write_text(text.replace('"initializer_range": 0.02', '"initializer_range": NaN'))
    assert "NaN is not a JSON number" in reason(llama)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": None}, "multiple of num_attention_heads"),
        ({"num_attention_heads": 2, "num_key_value_heads": 4}, "must be a multiple of num_key_value_heads"),
        ({"rope_theta": 500.0}, "remove one of them"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0}}, "yarn needs factor"),
        ({"rope_parameters": {"rope_type": "spiral", "rope_theta": 10000.0}}, "got 'spiral'"),
    ],
)
def test_contradictions(llama, values, message):
    change(llama, **values)
    assert message in reason(llama, GroundupError)


def test_attention_variants_that_are_not_built(gpt2):
    change(gpt2, scale_attn_by_inverse_layer_idx=True)
    assert "not supported" in reason(gpt2)


def test_contradictions_of_a_gpt2(gpt2):
    change(gpt2, n_head=3)
    assert "hidden_size (16) must be a multiple of num_attention_heads (3)" in reason(gpt2, GroundupError)
    change(gpt2, n_head=2, hidden_act="glue", activation_function=...)
    assert "glue" in reason(gpt2, GroundupError)
    change(gpt2, hidden_act="gelu_new", resid_pdrop=1.5)
    assert "resid_pdrop" in reason(gpt2, GroundupError)


def test_code_in_a_config_is_not_imported(llama, capsys):
    (llama / "evil.py").write_text("raise SystemExit('imported')")
    change(llama, auto_map={"AutoModelForCausalLM": "evil.Evil"})
    load_model(llama)
    assert "never run" in capsys.readouterr().err


def test_shapes_that_do_not_fit_are_reported(llama):
    change(llama, intermediate_size=32, vocab_size=21)
    text = reason(llama)
    assert "embed.tokens.weight: stored (20, 16), wanted (21, 16)" in text
    assert "blocks.0.mlp.down_proj.weight: stored (16, 24), wanted (16, 32)" in text


def test_a_fused_matrix_that_cannot_be_cut_is_named(gpt2):
    change(gpt2, n_embd=..., hidden_size=8)
    assert "transformer.h.0.attn.c_attn" in reason(gpt2)
    assert "(48,)" in reason(gpt2)


def test_missing_and_unexpected_tensors(llama):
    change(llama, num_hidden_layers=3)
    assert "missing (9): blocks.2.norm1.weight" in reason(llama)
    change(llama, num_hidden_layers=1)
    assert "no rule of this family knows 9 tensors: model.layers.1" in reason(llama)


def test_a_missing_shard(folder):
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    assert "lacks 1 of the" in reason(folder)
    assert shard.name in reason(folder)


@pytest.mark.parametrize("name", ["../../etc/passwd.safetensors", "/etc/passwd.safetensors", "a/../../x.safetensors"])
def test_an_index_that_leaves_the_folder(folder, name):
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"][next(iter(index["weight_map"]))] = name
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "would leave the folder" in reason(folder)


def test_a_bin_index_that_leaves_the_folder(llama):
    (llama / "model.safetensors").unlink()
    index = {"weight_map": {"lm_head.weight": "../../etc/passwd"}}
    (llama / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert "would leave the folder" in reason(llama)


def test_a_bin_index_that_disagrees_with_its_shards(llama):
    with open_weights(llama) as weights:
        tensors = {name: tensor.clone() for name, tensor in weights.tensors()}
    (llama / "model.safetensors").unlink()
    torch.save(tensors, llama / "a.bin")
    index = llama / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(tensors, "a.bin")}))
    load_model(llama)
    index.write_text(json.dumps({"weight_map": {**dict.fromkeys(tensors, "a.bin"), "more": "a.bin"}}))
    assert "lacks tensor 'more'" in reason(llama)
    index.write_text(json.dumps({"weight_map": dict.fromkeys(list(tensors)[1:], "a.bin")}))
    assert "does not list" in reason(llama)
    torch.save(tensors, llama / "b.bin")
    index.write_text(json.dumps({"weight_map": {**dict.fromkeys(tensors, "a.bin"), "lm_head.weight": "b.bin"}}))
    assert "is also in another shard" in reason(llama)


def test_weights_without_a_config(llama):
    (llama / "config.json").unlink()
    assert "has no config.json beside it" in reason(llama)
    assert "has no config.json beside it" in reason(llama / "model.safetensors")


def test_a_folder_without_weights_says_what_is_expected(llama):
    (llama / "model.safetensors").unlink()
    assert "holds no weights" in reason(llama)
    (llama / "notes.txt").write_text("x")
    assert "in no known form of weights: safetensors, Meta consolidated .pth" in reason(llama / "notes.txt")


def test_a_file_that_is_no_torch_file_though_named_so(llama):
    (llama / "x.pth").write_text("hello there, this is text")
    assert "neither a zip archive nor the older form" in reason(llama / "x.pth")
