"""GPT-3's pattern of layers, held against GPT-Neo in transformers, and its table of sizes against the paper."""

import pytest
import torch
import transformers as tf
from torch.testing import assert_close

from families.gpt_neo import GPT_NEO
from families.tiny import ids
from groundup.models.catalogue import config_of_size
from groundup.models.configs.gpt3 import GPT3Config
from groundup.models.hub import build_model, load_model

# Brown et al. 2020, table 2.1: parameters, layers, d_model, d_head
TABLE = {
    "gpt3-125m": (125e6, 12, 768, 64),
    "gpt3-350m": (350e6, 24, 1024, 64),
    "gpt3-760m": (760e6, 24, 1536, 96),
    "gpt3-1.3b": (1.3e9, 24, 2048, 128),
    "gpt3-2.7b": (2.7e9, 32, 2560, 80),
    "gpt3-6.7b": (6.7e9, 32, 4096, 128),
    "gpt3-13b": (13.0e9, 40, 5140, 128),
    "gpt3-175b": (175.0e9, 96, 12288, 128),
}


@pytest.mark.parametrize("window", [1, 5, 11])
def test_layers_take_turns_as_in_gpt_neo(window, tmp_path):
    """GPT-Neo is GPT-3 without biases on q, k, v, and with scores that are not divided: both can be made equal."""
    torch.manual_seed(0)
    theirs = tf.AutoModelForCausalLM.from_config(
        tf.GPTNeoConfig(**GPT_NEO | {"window_size": window}), dtype=torch.float32
    ).eval()
    theirs.save_pretrained(tmp_path)
    shape = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    ours = build_model(GPT3Config(**shape, max_position_embeddings=64, window_size=window)).eval()
    weights = load_model(tmp_path).state_dict()
    for name, weight in weights.items():
        if name.endswith("q_proj.weight"):
            weight.mul_((32 // 4) ** 0.5)
    missing, unexpected = ours.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.endswith("_proj.bias") for name in missing)
    with torch.no_grad():
        for name in missing:
            ours.get_parameter(name).zero_()
        x = ids(length=24)
        assert_close(ours(x), theirs(x).logits)


@pytest.mark.parametrize("name", TABLE)
def test_sizes_are_those_of_the_paper(name):
    """The counts stand in `tests/families/gpt3.py`; the paper prints them with two or three digits."""
    config, (parameters, layers, width, head_dim) = config_of_size(name), TABLE[name]
    with torch.device("meta"):
        model = build_of(config)
    assert (config.num_hidden_layers, config.hidden_size, model.blocks["0"].attn.head_dim) == (layers, width, head_dim)
    assert config.max_position_embeddings == 2048
    assert model.num_parameters() == pytest.approx(parameters, rel=0.02)


def build_of(config):
    """The model of a config, without memory."""
    from groundup.models.catalogue import model_class

    return model_class(config)(config)
