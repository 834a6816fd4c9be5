"""Configs whose layers are of two kinds: how files tell the kinds, what is refused, and what follows in the model."""

import pytest
import torch

from groundup.base.errors import CheckpointError, UsageError
from groundup.layers.rope import Rope
from groundup.layers.rotary_scaling import YarnScaling
from groundup.models.catalogue import config_from_hf, model_class

SHAPE = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4}
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16}


def olmo3(**changes):
    return config_from_hf({"model_type": "olmo3", **SHAPE, "pad_token_id": 0} | changes)


def cohere2(**changes):
    return config_from_hf({"model_type": "cohere2", **SHAPE} | changes)


def ropes(config):
    with torch.device("meta"):
        model = model_class(config)(config)
    return [block.attn.rope for block in model.blocks.values()]


def test_older_olmo3_files_tell_one_theta_for_both_kinds_and_a_scaling_for_one():
    config = olmo3(rope_theta=300.0, rope_scaling=YARN, max_position_embeddings=128)
    window, stretched = Rope(8, 300.0), Rope(8, 300.0, scaling=YarnScaling(8.0, 16))
    assert ropes(config) == [window, window, window, stretched]
    assert config.to_hf()["rope_parameters"] == {
        "full_attention": YARN | {"rope_theta": 300.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
    }


def test_what_a_file_does_not_say_of_waves_is_the_familys():
    assert {rope.theta for rope in ropes(olmo3())} == {500_000.0}
    each = {"full_attention": YARN, "sliding_attention": None}
    assert {rope.theta for rope in ropes(olmo3(rope_parameters=each))} == {500_000.0}
    assert [rope and rope.theta for rope in ropes(cohere2())] == [10_000.0, 10_000.0, 10_000.0, None]


def test_a_number_tells_the_kinds():
    for name in ("sliding_window_pattern", "_sliding_window_pattern"):
        config = cohere2(**{name: 2}, sliding_window=7)
        assert [config.window(i) for i in range(4)] == [7, None, 7, None]
    assert [cohere2().kind(i) for i in range(4)] == ["sliding_attention"] * 3 + ["full_attention"]
    listed = cohere2(sliding_window_pattern=4, layer_types=["full_attention"] * 4)
    assert {listed.window(i) for i in range(4)} == {None}


@pytest.mark.parametrize(
    ("make", "changes", "words"),
    [
        (olmo3, {"layer_types": ["full_attention"]}, "layer_types tells of 1 layers, num_hidden_layers of 4"),
        (olmo3, {"rope_parameters": {"sliding_attention": YARN}}, "layers with a window are not scaled, .* 'yarn'"),
        (olmo3, {"sliding_window_pattern": 0}, "sliding_window_pattern must be a whole number above 0, not 0"),
        (olmo3, {"sliding_window": 0}, "sliding_window"),
        (cohere2, {"head_dim": 16}, "head_dim is hidden_size / num_attention_heads in cohere2 models, 8, not 16"),
        (cohere2, {"use_parallel_block": False}, "use_parallel_block is True in cohere2 models, not False"),
        (cohere2, {"rotary_pct": 0.5}, "rotary_pct is 1.0 in cohere2 models, not 0.5"),
        (cohere2, {"use_qk_norm": True}, "use_qk_norm is False in cohere2 models, not True"),
        (cohere2, {"logit_scale": 0}, "logit_scale"),
        (cohere2, {"logit_scales": 1}, "keys that are not understood here: logit_scales. Did you mean `logit_scale`"),
    ],
)  # fmt: skip
def test_wrong_configs_are_refused_with_names_and_numbers(make, changes, words):
    with pytest.raises((CheckpointError, UsageError), match=words):
        make(**changes)


def test_released_settings_of_cohere2_come_back():
    said = {"layer_switch": 4, "rotary_pct": 1.0, "order_of_interleaved_layers": "local_attn_first"}
    assert cohere2(**said).to_hf().items() >= said.items()
