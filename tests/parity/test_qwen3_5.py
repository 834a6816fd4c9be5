"""Qwen3.5 as it is released, a model for images and texts; and what a hybrid costs."""

import json

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from families import REFERENCES
from families.qwen3_5_moe_text import SPARSE
from families.qwen3_next import HYBRID, LOOSE
from families.tiny import ids, make_ours, randomised
from groundup.base.errors import CheckpointError, UsageError
from groundup.cli import main
from groundup.estimates import flops, memory, params
from groundup.models.architecture.drawing import as_text
from groundup.models.architecture.trace import outline
from groundup.models.catalogue import config_from_hf, config_of_size
from groundup.models.configs.qwen3_5 import Qwen3_5Config
from groundup.models.hub import load_model

IMAGES = dict(depth=1, hidden_size=16, intermediate_size=24, num_heads=2, patch_size=4, out_hidden_size=32)
ROPE = dict(
    rope_parameters=dict(rope_theta=1e7, partial_rotary_factor=0.5, mrope_section=[2, 1, 1], mrope_interleaved=True)
)
WHOLES = {
    "qwen3_5": lambda tied: tf.Qwen3_5ForConditionalGeneration(
        tf.Qwen3_5Config(
            text_config=HYBRID | ROPE | dict(tie_word_embeddings=tied), vision_config=IMAGES, tie_word_embeddings=tied
        )
    ),
    "qwen3_5_moe": lambda tied: tf.Qwen3_5MoeForConditionalGeneration(
        tf.Qwen3_5MoeConfig(
            text_config=SPARSE | ROPE | dict(tie_word_embeddings=tied), vision_config=IMAGES, tie_word_embeddings=tied
        )
    ),
}


@pytest.fixture(params=WHOLES)
def whole(request, tmp_path):
    """(their model for images and texts, its folder in the layout of the releases)"""
    torch.manual_seed(0)
    theirs = randomised(WHOLES[request.param](tied=request.param == "qwen3_5"))
    theirs.save_pretrained(tmp_path / "whole")
    file = tmp_path / "whole/model.safetensors"
    tensors = load_file(file) | {"mtp.norm.weight": torch.ones(32), "mtp.fc.weight": torch.ones(32, 64)}
    tensors |= fused(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    return theirs, tmp_path / "whole"


def fused(tensors):
    """The experts of each layer in two tensors, as they are released; they leave `tensors`."""
    found = {}
    for name in [name for name in tensors if name.endswith("experts.0.gate_proj.weight")]:
        start = name.removesuffix("0.gate_proj.weight")
        gate, up, down = (
            torch.stack([tensors.pop(f"{start}{e}.{part}_proj.weight") for e in range(6)])
            for part in ("gate", "up", "down")
        )
        found |= {start + "gate_up_proj": torch.cat((gate, up), 1), start + "down_proj": down}
    return found


@pytest.mark.row("LM-47", reference="transformers")
def test_the_text_model_is_read_out_of_the_released_layout(whole, capsys):
    theirs, folder = whole
    names = list(load_file(folder / "model.safetensors"))
    assert sum(name.startswith("model.language_model.") for name in names) > 40
    assert any(name.endswith("experts.gate_up_proj") for name in names) == ("moe" in theirs.config.model_type)
    ours = load_model(folder)
    said = capsys.readouterr().err
    images = sum(name.startswith("model.visual.") for name in names)
    assert f"the model for images ({images} tensors)" in said
    assert "the layers that predict a second token (2 tensors)" in said
    with torch.no_grad():
        assert_close(ours(ids()), theirs(input_ids=ids()).logits, **LOOSE)
    assert ours.config.tie_word_embeddings == theirs.config.tie_word_embeddings


@pytest.mark.row("LM-47", reference="transformers")
def test_saved_it_is_a_text_model_that_transformers_loads(whole, tmp_path, capsys):
    theirs, folder = whole
    load_model(folder).save_pretrained(tmp_path / "text")
    again = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "text", dtype=torch.float32).eval()
    assert type(again).__name__ == type(theirs).__name__.replace("ForConditionalGeneration", "ForCausalLM")
    with torch.no_grad():
        assert_close(again(ids()).logits, theirs(input_ids=ids()).logits, **LOOSE)
    capsys.readouterr()
    load_model(tmp_path / "text")
    assert "without" not in capsys.readouterr().err


def test_what_is_said_beside_the_text_model_holds_for_it(whole):
    _, folder = whole
    values = json.loads((folder / "config.json").read_text())
    config = config_from_hf(values | {"eos_token_id": 7, "pad_token_id": None, "dtype": "bfloat16"})
    assert (config.kept["eos_token_id"], config.kept["dtype"]) == (7, "bfloat16")
    assert config.to_hf()["rope_parameters"]["mrope_section"] == [2, 1, 1]
    assert "vision_config" not in config.to_hf()
    with pytest.raises(CheckpointError, match="quantization_config"):
        config_from_hf(values | {"quantization_config": {"quant_method": "fp8"}})
    with pytest.raises(CheckpointError, match="needs a `text_config`"):
        config_from_hf({"model_type": values["model_type"]})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"linear_num_value_heads": 6, "linear_num_key_heads": 4}, r"\(6\) must be a multiple of .* \(4\)"),
        ({"layer_types": ["linear_attention"]}, "layer_types tells of 1 layers, num_hidden_layers of 32"),
        ({"hidden_act": "gelu"}, "hidden_act is silu in every qwen3_5_text model, not gelu"),
        ({"num_experts": 4}, "num_experts is 0 in every qwen3_5_text model, not 4"),
        ({"head_dim": 10}, "2 features|must be even"),
    ],
)
def test_shapes_that_cannot_be_are_refused(wrong, says):
    if wrong == {"head_dim": 10}:
        wrong = {"head_dim": 12}  # a quarter of it is 3
    with pytest.raises(UsageError, match=says):
        Qwen3_5Config.parse(wrong, where="test")


def test_keys_that_would_change_the_computation_are_refused():
    values = config_of_size("qwen3.5-0.8b").to_hf()
    assert config_from_hf(values | {"attn_output_gate": True, "output_gate_type": "swish"})
    with pytest.raises(CheckpointError, match="attn_output_gate False is not supported"):
        config_from_hf(values | {"attn_output_gate": False})


def test_what_a_file_leaves_out_is_as_transformers_takes_it():
    values = config_of_size("qwen3.5-0.8b").to_hf() | {"num_hidden_layers": 6, "full_attention_interval": 3}
    for name in ("layer_types", "rope_parameters", "num_key_value_heads"):
        del values[name]
    expected, config = tf.AutoConfig.for_model(**values), config_from_hf(values)
    assert config.kinds == expected.layer_types
    assert expected.layer_types.count("full_attention") == 2
    assert config.to_hf()["rope_parameters"] == expected.rope_parameters
    assert config.num_key_value_heads == expected.num_key_value_heads


HYBRIDS = [name for kind in ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text") for name in REFERENCES[kind].cases]


@torch.no_grad()
@pytest.mark.parametrize("name", HYBRIDS)
def test_estimates_of_hybrids(name, tmp_path):
    """Parameters, matrices and operations of one token as torch counts them, and the bytes of a real state."""
    model = make_ours(name, tmp_path)
    c = model.config
    assert params.count_parameters(c) == params.count_parameters(c.to_hf()) == model.num_parameters()
    memories = c.kinds.count("linear_attention")
    mixtures = sum(c.has_experts(i) for i in range(c.num_hidden_layers))
    if not mixtures:  # experts are one tensor of three dimensions
        counted = [(a, b) for a, b, copies, _ in memory.matrix_shapes(c) for _ in range(copies)]
        assert sorted(counted) == sorted(tuple(p.shape) for p in model.parameters() if p.ndim == 2)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(ids(1, 1))
    # torch counts no outer products and not the convolution of one token; and how experts are weighed, and the shared
    # one, which we leave out
    channels = 2 * c.linear_num_key_heads * c.linear_key_head_dim + c.linear_num_value_heads * c.linear_value_head_dim
    convolution = 2 * memories * channels * c.linear_conv_kernel_dim
    outer = 2 * memories * c.linear_num_value_heads * c.linear_key_head_dim * c.linear_value_head_dim
    weighing = 2 * mixtures * c.hidden_size * (c.num_experts_per_tok + 1)
    assert flops.flops(c, 1).forward == counter.get_total_flops() + outer + convolution - weighing
    state = model.make_state(3, 17)
    model(ids(3, 17), state=state)
    # keys and values have a place more, for padding
    assert memory.inference_memory(c, batch=3, seq_len=18, dtype="fp32").kv_cache == state.nbytes
    drawn = outline(c)
    growing = 18 * 2 * drawn.state_bytes  # told for bf16
    assert growing + drawn.constant_state_bytes == state.nbytes / 3


@pytest.mark.parametrize("name", ["qwen3.5", "qwen3-next"])
def test_activation_estimate_of_hybrids_is_near_what_is_kept(name, tmp_path):
    model = make_ours(name, tmp_path).train()
    seen = {t.untyped_storage().data_ptr() for t in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), sdpa_kernel(SDPBackend.MATH):
        assert model(ids(2, 64)).requires_grad
    estimate = memory.activation_memory(model.config, batch=2, seq_len=64, dtype="fp32")
    assert 0.8 < sum(kept.values()) / estimate < 1.3


def test_the_drawing_tells_memories_from_attention():
    drawn = outline(config_of_size("qwen3.5-9b"), "qwen3.5-9b")
    assert [len(group.layers) for group in drawn.groups] == [3, 1] * 8
    text = as_text(drawn)
    assert "32 memories of 128 × 128, 16 key heads, convolution of 4" in text
    assert "16 heads of 256, 4 for keys and values, rotary (64 of 256 features" in text
    # 8 layers of 2 x 4 heads of 256 numbers in bf16
    assert drawn.state_bytes == 8 * 2 * 4 * 256 * 2


def test_estimates_read_the_file_of_the_whole_model(whole, capsys):
    _, folder = whole
    assert main(["estimate", "params", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"] == load_model(folder).num_parameters()
