"""The first Qwen's files, and what it does beyond its context of training."""

import json
from pathlib import Path

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from families.shapes import LLAMA
from families.tiny import ids, randomised
from groundup.base.errors import CheckpointError, UsageError
from groundup.layers.rotary_scaling import DoublingNTKScaling
from groundup.models.catalogue import config_from_hf, config_of_size
from groundup.models.hub import load_model

FOLDER = Path(__file__).parents[1] / "data" / "reference"
RELEASED = """{"architectures": ["QWenLMHeadModel"], "attn_dropout_prob": 0.0, "bf16": false, "emb_dropout_prob": 0.0,
    "fp16": false, "fp32": false, "hidden_size": 4096, "intermediate_size": 22016, "initializer_range": 0.02,
    "kv_channels": 128, "layer_norm_epsilon": 1e-06, "max_position_embeddings": 8192, "model_type": "qwen",
    "no_bias": true, "num_attention_heads": 32, "num_hidden_layers": 32, "onnx_safe": null,
    "rotary_emb_base": 10000, "rotary_pct": 1.0, "scale_attn_weights": true, "seq_length": 8192,
    "tie_word_embeddings": false, "tokenizer_class": "QWenTokenizer", "transformers_version": "4.32.0",
    "use_cache": true, "use_dynamic_ntk": true, "use_flash_attn": "auto", "use_logn_attn": true,
    "vocab_size": 151936}"""
FIRST = """{"activation": "swiglu", "apply_residual_connection_post_layernorm": false,
    "architectures": ["QWenLMHeadModel"], "attn_pdrop": 0.0, "bf16": false, "fp16": false, "fp32": false,
    "bias_dropout_fusion": true, "bos_token_id": 151643, "embd_pdrop": 0.0, "eos_token_id": 151643,
    "ffn_hidden_size": 22016, "initializer_range": 0.02, "kv_channels": 128, "layer_norm_epsilon": 1e-06,
    "model_type": "qwen", "n_embd": 4096, "n_head": 32, "n_layer": 32, "n_positions": 6144, "no_bias": true,
    "onnx_safe": null, "padded_vocab_size": 151936, "params_dtype": "torch.bfloat16", "pos_emb": "rotary",
    "resid_pdrop": 0.1, "rotary_emb_base": 10000, "rotary_pct": 1.0, "scale_attn_weights": true,
    "seq_length": 2048, "tie_word_embeddings": false, "tokenizer_type": "QWenTokenizer",
    "transformers_version": "4.31.0", "use_cache": true, "use_flash_attn": "auto", "vocab_size": 151936,
    "use_dynamic_ntk": true, "use_logn_attn": true}"""


def test_within_its_context_it_computes_what_qwen2_does(tmp_path):
    """The same weights in transformers' Qwen2, renamed and fused by hand."""
    theirs = randomised(tf.Qwen2ForCausalLM(tf.Qwen2Config(**LLAMA, num_key_value_heads=4)))
    old = theirs.state_dict()
    new = {
        "transformer.wte.weight": old["model.embed_tokens.weight"],
        "transformer.ln_f.weight": old["model.norm.weight"],
        "lm_head.weight": old["lm_head.weight"],
    }
    names = {
        **{"ln_1": "input_layernorm", "ln_2": "post_attention_layernorm", "attn.c_proj": "self_attn.o_proj"},
        **{"mlp.w1": "mlp.up_proj", "mlp.w2": "mlp.gate_proj", "mlp.c_proj": "mlp.down_proj"},
    }
    for i in range(3):
        a, b = f"model.layers.{i}.", f"transformer.h.{i}."
        new |= {f"{b}{name}.weight": old[f"{a}{theirs_name}.weight"] for name, theirs_name in names.items()}
        for leaf in ("weight", "bias"):
            new[f"{b}attn.c_attn.{leaf}"] = torch.cat([old[f"{a}self_attn.{p}_proj.{leaf}"] for p in "qkv"])
    shape = {"hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = shape | {"model_type": "qwen", "vocab_size": 64, "kv_channels": 8, "layer_norm_epsilon": 1e-6}
    (tmp_path / "config.json").write_text(json.dumps(config | {"seq_length": 64, "use_dynamic_ntk": True}))
    save_file({name: tensor.clone() for name, tensor in new.items()}, tmp_path / "model.safetensors")
    with torch.no_grad():
        assert_close(load_model(tmp_path)(ids()), theirs(ids()).logits)


@pytest.mark.parametrize("text", [RELEASED, FIRST])
def test_released_configs_of_their_time(text):
    values = json.loads(text)
    config, size = config_from_hf(values), config_of_size("qwen-7b")
    context = values["seq_length"]  # 2,048 in the first files
    given = {"seq_length": context, "max_position_embeddings": config.max_position_embeddings}
    assert config == size.model_copy(update=given | {"kept": config.kept})
    assert config_from_hf(config.to_hf()) == config.model_copy(update={"kept": config_from_hf(config.to_hf()).kept})


def test_the_later_file_is_written_as_it_was_read():
    values = json.loads(RELEASED)
    written = config_from_hf(values).to_hf()
    assert {name: written.get(name) for name in values} == values


def test_what_no_release_does_is_refused():
    with pytest.raises(CheckpointError, match="no_bias of a qwen model can only be True"):
        config_from_hf(json.loads(RELEASED) | {"no_bias": False})
    with pytest.raises(UsageError, match="must be hidden_size"):
        config_from_hf(json.loads(RELEASED) | {"kv_channels": 64})


@pytest.mark.parametrize("name", ["qwen", "qwen_long"])
def test_what_we_save_has_the_names_and_tensors_of_the_release(name, tmp_path):
    theirs = load_file(FOLDER / name / "weights.safetensors")
    load_model(FOLDER / name / "weights.safetensors").save_pretrained(tmp_path)
    ours = load_file(tmp_path / "model.safetensors")
    assert set(ours) == set(theirs)
    for tensor_name, tensor in ours.items():
        assert torch.equal(tensor, theirs[tensor_name]), tensor_name


def test_waves_are_stretched_in_steps():
    """alpha of Qwen's code: max(2^ceil(log2(n / L) + 1) - 1, 1), theta times alpha^(d / (d - 2))."""
    scaling, frequencies = DoublingNTKScaling(8), 10_000.0 ** (-torch.arange(0, 8, 2) / 8)
    for length, alpha in ((3, 1), (8, 1), (9, 3), (16, 3), (17, 7), (32, 7), (33, 15)):
        theta = 10_000.0 * alpha ** (8 / 6)
        expected = theta ** (-torch.arange(0, 8, 2) / 8)
        assert_close(scaling(frequencies, 10_000.0, torch.tensor(length)), expected)


def test_each_flag_changes_what_is_beyond_the_context_alone():
    values = load_file(FOLDER / "qwen_long" / "values.safetensors")
    model = load_model(FOLDER / "qwen_long" / "weights.safetensors")
    plain = type(model)(model.config.model_copy(update={"use_dynamic_ntk": False, "use_logn_attn": False})).eval()
    plain.load_state_dict(model.state_dict())
    x = values["ids"]
    with torch.no_grad():
        assert_close(plain(x[:, :8]), model(x[:, :8]))
        assert ((plain(x) - model(x)).abs().amax(-1) > 1e-4)[:, 8:].all()
