"""ChatGLM2, ChatGLM3 and GLM-4 in their own layout, against transformers' GLM and the authors' files."""

import json
from pathlib import Path

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from families.glm import TINY
from families.tiny import ids, randomised
from groundup.base.errors import CheckpointError, UsageError
from groundup.models.catalogue import config_from_hf, config_of_size
from groundup.models.hub import load_model

FOLDER = Path(__file__).parents[1] / "data" / "reference"
RELEASED = {  # as on the pages of the releases, without the names of code
    "chatglm2-6b": """{"_name_or_path": "THUDM/chatglm2-6b", "model_type": "chatglm",
    "architectures": ["ChatGLMModel"], "add_bias_linear": false, "add_qkv_bias": true,
    "apply_query_key_layer_scaling": true, "apply_residual_connection_post_layernorm": false,
    "attention_dropout": 0.0, "attention_softmax_in_fp32": true, "bias_dropout_fusion": true,
    "ffn_hidden_size": 13696, "fp32_residual_connection": false, "hidden_dropout": 0.0, "hidden_size": 4096,
    "kv_channels": 128, "layernorm_epsilon": 1e-05, "multi_query_attention": true, "multi_query_group_num": 2,
    "num_attention_heads": 32, "num_layers": 28, "original_rope": true, "padded_vocab_size": 65024,
    "post_layer_norm": true, "rmsnorm": true, "seq_length": 32768, "use_cache": true, "torch_dtype": "float16",
    "transformers_version": "4.27.1", "tie_word_embeddings": false, "eos_token_id": 2, "pad_token_id": 0}""",
    "chatglm3-6b-32k": """{"_name_or_path": "THUDM/chatglm3-6b-32k", "model_type": "chatglm",
    "architectures": ["ChatGLMModel"], "add_bias_linear": false, "add_qkv_bias": true,
    "apply_query_key_layer_scaling": true, "apply_residual_connection_post_layernorm": false,
    "attention_dropout": 0.0, "attention_softmax_in_fp32": true, "bias_dropout_fusion": true,
    "ffn_hidden_size": 13696, "fp32_residual_connection": false, "hidden_dropout": 0.0, "hidden_size": 4096,
    "kv_channels": 128, "layernorm_epsilon": 1e-05, "rope_ratio": 50, "multi_query_attention": true,
    "multi_query_group_num": 2, "num_attention_heads": 32, "num_layers": 28, "original_rope": true,
    "padded_vocab_size": 65024, "post_layer_norm": true, "rmsnorm": true, "seq_length": 32768, "use_cache": true,
    "torch_dtype": "float16", "transformers_version": "4.30.2", "tie_word_embeddings": false, "eos_token_id": 2,
    "pad_token_id": 0}""",
}


def in_their_layout(theirs, folder):
    """Write a transformers GLM as the authors of ChatGLM would: names and fused tensors, by hand."""
    c, tensors = theirs.config, theirs.state_dict()
    named = {
        "transformer.embedding.word_embeddings.weight": tensors["model.embed_tokens.weight"],
        "transformer.encoder.final_layernorm.weight": tensors["model.norm.weight"],
        "transformer.output_layer.weight": tensors["lm_head.weight"],
        "transformer.rotary_pos_emb.inv_freq": torch.zeros(2),
    }
    for i in range(c.num_hidden_layers):
        old, new = f"model.layers.{i}.", f"transformer.encoder.layers.{i}."
        for leaf in ("weight", "bias"):
            parts = [tensors[f"{old}self_attn.{p}_proj.{leaf}"] for p in "qkv"]
            named[f"{new}self_attention.query_key_value.{leaf}"] = torch.cat(parts)
        named[new + "self_attention.dense.weight"] = tensors[old + "self_attn.o_proj.weight"]
        named[new + "mlp.dense_h_to_4h.weight"] = tensors[old + "mlp.gate_up_proj.weight"]
        named[new + "mlp.dense_4h_to_h.weight"] = tensors[old + "mlp.down_proj.weight"]
        for norm in ("input_layernorm", "post_attention_layernorm"):
            named[f"{new}{norm}.weight"] = tensors[f"{old}{norm}.weight"]
    config = {
        **{"model_type": "chatglm", "num_layers": c.num_hidden_layers, "padded_vocab_size": c.vocab_size},
        **{"hidden_size": c.hidden_size, "ffn_hidden_size": c.intermediate_size, "kv_channels": c.head_dim},
        **{"num_attention_heads": c.num_attention_heads, "multi_query_group_num": c.num_key_value_heads},
        **{"multi_query_attention": True, "add_qkv_bias": True, "layernorm_epsilon": c.rms_norm_eps},
        **{"rope_ratio": c.rope_parameters["rope_theta"] / 10_000, "seq_length": c.max_position_embeddings},
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.clone() for name, tensor in named.items()}, folder / "model.safetensors")


def test_glm_4_in_the_layout_of_its_release_equals_transformers(tmp_path):
    config = tf.GlmConfig(**TINY, rope_parameters=dict(rope_theta=5_000_000.0, partial_rotary_factor=0.5))
    theirs = randomised(tf.GlmForCausalLM(config))
    in_their_layout(theirs, tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs")
    with torch.no_grad():
        assert_close(ours(ids()), theirs(ids()).logits)


@pytest.mark.parametrize("name", ["chatglm2", "chatglm3"])
def test_left_padding_equals_the_authors(name):
    model, values = load_model(FOLDER / name / "weights.safetensors"), load_file(FOLDER / name / "values.safetensors")
    mask = values["attention_mask"]
    with torch.no_grad():
        mine = model(values["ids"], documents=mask)
    assert_close(mine[mask == 1], values["padded"][mask == 1])


@pytest.mark.parametrize("name", ["chatglm2", "chatglm3"])
def test_what_we_save_has_the_names_and_tensors_of_the_release(name, tmp_path):
    theirs = load_file(FOLDER / name / "weights.safetensors")
    load_model(FOLDER / name / "weights.safetensors").save_pretrained(tmp_path)
    ours = load_file(tmp_path / "model.safetensors")
    assert set(theirs) - set(ours) == {"transformer.rotary_pos_emb.inv_freq"}
    for tensor_name, tensor in ours.items():
        assert torch.equal(tensor, theirs[tensor_name]), tensor_name
    published, written = (json.loads((f / "config.json").read_text()) for f in (FOLDER / name, tmp_path))
    assert {key: written[key] for key in published if key != "torch_dtype"} == {
        key: value for key, value in published.items() if key != "torch_dtype"
    }


@pytest.mark.parametrize("name", RELEASED)
def test_released_configs_are_the_published_sizes(name):
    values = json.loads(RELEASED[name])
    config = config_from_hf(values)
    assert config.model_dump(exclude={"kept"}) == config_of_size(name).model_dump(exclude={"kept"})
    assert {key: config.to_hf().get(key) for key in values} | {"torch_dtype": "float16"} == values


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantization_bit": 4}, "quantization_bit 4 is not supported"),
        ({"pre_seq_len": 128}, "pre_seq_len 128"),
        ({"rmsnorm": False}, "rmsnorm of a chatglm model can only be True"),
        ({"multi_query_attention": False}, "multi_query_attention"),
        ({"vocab_size": 65_025}, "must be equal"),
        ({"rope_ratio": 16}, "divides positions"),
        ({"multi_query_group_num": 5}, "must be a multiple"),
    ],
)
def test_what_no_release_does_is_refused(changes, message):
    with pytest.raises((CheckpointError, UsageError), match=message):
        config_from_hf(json.loads(RELEASED["chatglm2-6b"]) | changes)
