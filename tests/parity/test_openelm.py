"""OpenELM's widths: those of the released files, and configs that contradict themselves."""

import numpy as np
import pytest

from groundup.base.errors import CheckpointError, UsageError
from groundup.models.catalogue import config_from_hf
from groundup.models.configs.openelm import OpenELMConfig, multiple_of, spread

# config.json of apple/OpenELM-270M, as copies of the model page have it
RELEASED = {
    **{"activation_fn_name": "swish", "architectures": ["OpenELMForCausalLM"], "bos_token_id": 1, "eos_token_id": 2},
    **{"ffn_dim_divisor": 256, "ffn_with_glu": True, "head_dim": 64, "initializer_range": 0.02},
    **{"max_context_length": 2048, "model_dim": 1280, "model_type": "openelm", "normalization_layer_name": "rms_norm"},
    **{"normalize_qk_projections": True, "num_gqa_groups": 4, "num_transformer_layers": 16, "vocab_size": 32_000},
    **{"qkv_multipliers": [0.5, 1.0], "rope_freq_constant": 10_000, "rope_max_length": 4096},
    **{"share_input_output_layers": True, "torch_dtype": "float32", "transformers_version": "4.40.2"},
    "ffn_multipliers": [
        *(0.5, 0.73, 0.97, 1.2, 1.43, 1.67, 1.9, 2.13, 2.37, 2.6, 2.83, 3.07, 3.3, 3.53, 3.77, 4.0),
    ],
    "num_query_heads": [12] * 5 + [16] * 7 + [20] * 4,
    "num_kv_heads": [3] * 5 + [4] * 7 + [5] * 4,
    "use_cache": True,
}


@pytest.mark.row("LM-46", reference="the released config.json")
def test_the_released_file_is_the_published_size():
    config, size = OpenELMConfig.from_hf(RELEASED), OpenELMConfig.of_size("openelm-270m")
    assert config_from_hf(RELEASED) == config
    assert config.query_heads == size.query_heads == tuple(RELEASED["num_query_heads"])
    assert config.mlp_widths == size.mlp_widths
    told = {name: value for name, value in RELEASED.items() if name not in ("torch_dtype", "rope_max_length")}
    written = config.to_hf()
    assert {name: written[name] for name in told} == told
    assert {name: value for name, value in size.to_hf().items() if name != "dtype"}.items() <= written.items()
    # those of apple/OpenELM-1_1B
    heads = [16] * 3 + [20] * 7 + [24] * 8 + [28] * 6 + [32] * 4
    assert OpenELMConfig.of_size("openelm-1.1b").query_heads == tuple(heads)


def test_multipliers_are_those_that_numpy_gives():
    for layers in range(2, 60):
        for first, last in ((0.5, 4.0), (0.5, 1.0), (1.0, 0.3), (0.115, 2.675)):
            theirs = [round(v, 2) for v in np.linspace(first, last, num=layers, dtype=float)]
            assert spread((first, last), layers) == tuple(theirs)
    assert spread((0.5, 1.0), 1) == (0.5,)
    assert [multiple_of(width, 16) for width in (1, 23, 24, 25, 40, 41)] == [16, 32, 32, 32, 48, 48]
    assert [multiple_of(width, 64) for width in (71, 72)] == [64, 128]  # 64 would lose more than a tenth of 72


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"num_query_heads": [12] * 16},
            r"lists num_query_heads .* but qkv_multipliers \(0.5, 1.0\), num_gqa_groups 4",
        ),
        ({"num_kv_heads": [1] * 16}, "lists num_kv_heads"),
        (
            {"ffn_multipliers": [1.0, 2.0, 3.0]},
            "ffn_multipliers has 3 numbers: one, two or 16, one a layer, are needed",
        ),
        ({"normalization_layer_name": "layer_norm"}, "rms_norm"),
        ({"attention_dropout": 0.1}, "not understood here: attention_dropout"),
    ],
)
def test_files_that_contradict_themselves_are_refused(changes, message):
    with pytest.raises((CheckpointError, UsageError), match=message):
        config_from_hf(RELEASED | changes)


def test_heads_and_their_width_follow_from_each_other():
    assert OpenELMConfig(hidden_size=256, num_attention_heads=8).head_dim == 32
    assert OpenELMConfig(hidden_size=256, head_dim=64).num_attention_heads == 4
    with pytest.raises(
        UsageError, match=r"num_attention_heads \(3\) times head_dim \(64\) must be hidden_size \(256\)"
    ):
        OpenELMConfig.parse({"hidden_size": 256, "head_dim": 64, "num_attention_heads": 3})
    with pytest.raises(UsageError, match="head_dim"):
        OpenELMConfig.parse({"hidden_size": 256, "head_dim": 7})
