"""Both spellings of config.json, held against transformers; sizes that are refused."""

import pytest

from groundup.base.errors import CheckpointError
from groundup.base.hf_config import both_spellings, check_sizes, normalise_config, without_code_keys

SIZES = {"model_type": "llama", "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 64}

# older spelling -> what normalise_config makes of it
SPELLINGS = {
    "plain": ({"torch_dtype": "float16", "rope_theta": 5e5}, {"rope_theta": 5e5, "rope_type": "default"}),
    "null": (
        {"torch_dtype": "float16", "rope_theta": 1e4, "rope_scaling": None},
        {"rope_theta": 1e4, "rope_type": "default"},
    ),
    "linear": (
        {"torch_dtype": "float16", "rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0},
    ),
    "yarn": ({"torch_dtype": "float16", "rope_theta": 1e6, "rope_scaling": YARN}, {"rope_theta": 1e6, **YARN}),
    "llama3": ({"torch_dtype": "float16", "rope_theta": 5e5, "rope_scaling": LLAMA3}, {"rope_theta": 5e5, **LLAMA3}),
}


@pytest.mark.parametrize("case", SPELLINGS)
def test_older_spelling_becomes_the_new_one(case):
    older, rope = SPELLINGS[case]
    given = {**SIZES, **older}
    canonical = normalise_config(given)
    assert canonical == {**SIZES, "dtype": "float16", "rope_parameters": rope}
    assert normalise_config(canonical) == canonical
    assert normalise_config(both_spellings(canonical)) == canonical
    assert given == {**SIZES, **older}


@pytest.mark.parametrize("case", SPELLINGS)
def test_transformers_reads_all_three_alike(case):
    """What transformers makes of the older file, of the canonical config, and of what we write is the same."""
    from transformers import AutoConfig

    older, rope = SPELLINGS[case]

    def theirs(config):
        config = {**config, "max_position_embeddings": 256}
        read = AutoConfig.for_model(config.pop("model_type")).from_dict(config).to_dict()
        return {key: value for key, value in read["rope_parameters"].items() if key != "type"}, str(read["dtype"])

    canonical = normalise_config({**SIZES, **older})
    assert theirs({**SIZES, **older}) == theirs(canonical) == theirs(both_spellings(canonical))
    assert theirs(canonical) == (rope, "float16")


def test_duplicates_are_written_for_older_readers():
    written = both_spellings({**SIZES, "dtype": "bfloat16", "rope_parameters": {"rope_theta": 1e4, **YARN}})
    assert (written["torch_dtype"], written["rope_theta"], written["rope_scaling"]) == ("bfloat16", 1e4, YARN)
    plain = both_spellings({"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}})
    assert plain["rope_theta"] == 1e4
    assert "rope_scaling" not in plain
    assert both_spellings({"model_type": "gpt2"}) == {"model_type": "gpt2"}


def test_rope_by_layer_type_is_left_alone():
    rope = {"full_attention": {"rope_theta": 1e6, "rope_type": "default"}, "sliding_attention": {"rope_theta": 1e4}}
    assert normalise_config({"rope_parameters": rope}) == {"rope_parameters": rope}
    assert both_spellings({"rope_parameters": rope}) == {"rope_parameters": rope}


def test_contradictions_are_named():
    with pytest.raises(CheckpointError, match=r"`dtype` is 'float32' but `torch_dtype` is 'float16'"):
        normalise_config({"dtype": "float32", "torch_dtype": "float16"})
    with pytest.raises(CheckpointError, match="rope_theta"):
        normalise_config({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}})
    with pytest.raises(CheckpointError, match="rope_scaling.factor"):
        normalise_config({"rope_scaling": {"type": "linear", "factor": 2}, "rope_parameters": {"factor": 4}})
    for wrong in ({"dtype": 16}, {"rope_parameters": "yarn"}, {"rope_scaling": [1]}):
        with pytest.raises(CheckpointError, match=r"config\.json"):
            normalise_config(wrong)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 2**40},
        {"hidden_size": -1},
        {"hidden_size": 0},
        {"hidden_size": 16.0},
        {"hidden_size": "16"},
        {"hidden_size": True},
        {"hidden_size": {"a": 1}},
        {"vocab_size": 10**30},
        {"num_hidden_layers": 10**6},
        {"num_key_value_heads": [2, -2]},
        {"intermediate_size": [16, 2**60]},
        {"max_position_embeddings": 2**40},
        {"rms_norm_eps": float("nan")},
        {"rope_parameters": {"rope_theta": float("inf")}},
        {"text_config": {"hidden_size": 2**40}},
        {"text_config": {"vision_config": {"n_layer": -5}}},
        {"hidden_size": 2**20, "num_hidden_layers": 2**14},
        {"eos_token_id": [2**70]},
    ],
)
def test_absurd_sizes_are_refused(change):
    with pytest.raises(CheckpointError, match=r"config\.json"):
        check_sizes({**SIZES, **change})


def test_published_sizes_pass():
    check_sizes(SIZES)
    check_sizes(
        {"n_embd": 1600, "n_layer": 48, "n_head": 25, "n_inner": None, "vocab_size": 50257, "n_positions": 1024}
    )
    # Kimi K2, a trillion parameters; Llama 4 Scout's context.
    huge = {"vocab_size": 163840, "hidden_size": 7168, "num_hidden_layers": 61, "n_routed_experts": 384}
    check_sizes({**huge, "moe_intermediate_size": 2048, "intermediate_size": 18432, "num_attention_heads": 64})
    check_sizes({"text_config": {**SIZES, "max_position_embeddings": 10485760}, "num_key_value_heads": [2, 4, None]})


def test_keys_that_name_code_are_found_at_any_depth():
    config = {
        "a": [{"auto_map": {"AutoModel": "evil.Model"}}],
        "trust_remote_code": True,
        "text_config": {"auto_map": {}},
    }
    kept, found = without_code_keys(config)
    assert kept == {"a": [{}], "text_config": {}}
    assert sorted(found) == ["auto_map", "auto_map", "trust_remote_code"]
