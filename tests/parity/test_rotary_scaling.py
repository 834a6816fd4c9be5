"""Rotary positions beyond the context of training: every rope_type against transformers, through config.json too."""

import json
import math

import pytest
import torch
import transformers as tf
from torch.testing import assert_close
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from groundup.base.errors import UsageError
from groundup.layers.rope import LinearScaling, Rope, interleaved_to_half_split
from groundup.layers.rotary_scaling import NTKScaling, YarnScaling
from groundup.models.catalogue import config_from_hf
from groundup.models.hub import load_model

SHAPE = dict(
    vocab_size=64, hidden_size=64, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, max_position_embeddings=64,
)  # fmt: skip
LISTS = {"short_factor": [1 + j / 20 for j in range(16)], "long_factor": [1 + j / 2 for j in range(16)]}
ROPES = {
    "linear": dict(rope_type="linear", factor=4.0),
    "dynamic": dict(rope_type="dynamic", factor=2.0),
    "yarn": dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16),
    "yarn, all settings": dict(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=4.0, beta_slow=2.0,
        attention_factor=1.5, truncate=False,
    ),
    "yarn, no band": dict(rope_type="yarn", factor=2.0, original_max_position_embeddings=32, beta_fast=1.0),
    "yarn, DeepSeek": dict(
        rope_type="yarn", factor=40.0, original_max_position_embeddings=4096, mscale=0.707, mscale_all_dim=1.0
    ),
    "yarn, shrunk": dict(rope_type="yarn", factor=0.5, original_max_position_embeddings=64),
    "llama3": dict(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16
    ),
    "longrope": dict(rope_type="longrope", factor=4.0, original_max_position_embeddings=16, **LISTS),
    "longrope, all settings": dict(
        rope_type="longrope", original_max_position_embeddings=16, attention_factor=1.25, **LISTS
    ),
}  # fmt: skip


def config(name: str, **changes) -> tf.LlamaConfig:
    rope = json.loads(json.dumps(ROPES[name])) | {"rope_theta": 10_000.0}
    return tf.LlamaConfig(**SHAPE | changes, rope_parameters=rope)


@pytest.mark.row("LAY-45", reference="transformers: modeling_rope_utils")
@pytest.mark.parametrize("length", [10, 64, 200])
@pytest.mark.parametrize("name", ROPES)
def test_frequencies_and_magnitude(name, length):
    theirs = config(name)
    expected, magnitude = ROPE_INIT_FUNCTIONS[theirs.rope_parameters["rope_type"]](theirs, "cpu", seq_len=length)
    ours = config_from_hf(theirs.to_dict())
    from groundup.models.text.llama import Llama

    rope = Llama.make_rope(_Built(ours), 0)
    assert_close(rope.frequencies(length=length), expected, atol=0, rtol=1e-6)  # powers in another order
    assert rope.scaling.magnitude == pytest.approx(magnitude, rel=1e-12)


class _Built:
    """What `make_rope` reads of a model."""

    def __init__(self, config):
        self.config, self.head_dim = config, config.hidden_size // config.num_attention_heads


@pytest.mark.row("LAY-45", reference="transformers")
@pytest.mark.parametrize("name", ROPES)
def test_models_of_every_rope_type_through_files(name, tmp_path):
    """Rows below and above the old context; what we write, transformers reads as it was."""
    torch.manual_seed(0)
    theirs = tf.LlamaForCausalLM(config(name)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs")
    for length in (12, 90):
        ids = torch.randint(0, 64, (2, length))
        with torch.no_grad():
            assert_close(ours(ids), theirs(ids).logits, atol=2e-5, rtol=1e-4)  # angles of 90 in float32
    ours.save_pretrained(tmp_path / "ours")
    again = tf.AutoConfig.from_pretrained(tmp_path / "ours")
    assert again.rope_parameters == theirs.config.rope_parameters
    old = json.loads((tmp_path / "theirs/config.json").read_text())  # the spelling of transformers 4
    rope = old.pop("rope_parameters")
    old["rope_theta"] = rope.pop("rope_theta")
    old["rope_scaling"] = {"type": rope.pop("rope_type"), **rope}
    assert config_from_hf(old).rope_parameters == ours.config.rope_parameters


def phi3(**changes) -> tf.Phi3Config:
    return tf.Phi3Config(**SHAPE | {"pad_token_id": 0, "max_position_embeddings": 128} | changes)


@pytest.mark.row("LAY-45", reference="transformers: Phi-3")
@pytest.mark.parametrize("kind", ["128k", "partial"])
def test_phi3_with_long_context_and_with_partial_rotation(kind, tmp_path):
    """Phi-3 128k keeps its old context beside the rotary settings and names the type `su`; Phi-4 mini turns 3/4."""
    torch.manual_seed(0)
    if kind == "128k":
        rope = dict(rope_type="longrope", rope_theta=10_000.0, **LISTS)
        theirs = tf.Phi3ForCausalLM(phi3(original_max_position_embeddings=16, rope_parameters=rope))
    else:
        theirs = tf.Phi3ForCausalLM(phi3(partial_rotary_factor=0.75))
    theirs.eval().save_pretrained(tmp_path / "theirs")
    ours, ids = load_model(tmp_path / "theirs"), torch.randint(1, 64, (2, 40))
    with torch.no_grad():
        for x in (ids, ids[:, :12]):
            assert_close(ours(x), theirs(x).logits, atol=2e-5, rtol=1e-4)  # angles of 40 in float32
    assert ours.blocks["0"].attn.rope.dim == (32 if kind == "128k" else 24)
    ours.save_pretrained(tmp_path / "ours")
    again = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32).eval()
    with torch.no_grad():
        assert torch.equal(again(ids).logits, theirs(ids).logits)
    values = json.loads((tmp_path / "theirs/config.json").read_text())
    rope = values.pop("rope_parameters")
    if kind == "128k":
        lists = {name: rope[name] for name in LISTS}
        values |= {"rope_theta": rope["rope_theta"], "rope_scaling": {"type": "su", **lists}}
    else:
        values |= {"rope_theta": rope["rope_theta"], "partial_rotary_factor": 0.75}
    assert config_from_hf(values).rope_parameters == ours.config.rope_parameters


@pytest.mark.row("LAY-45", reference="transformers: GLM-4")
@pytest.mark.parametrize("ratio", [1, 500])
def test_chatglm_turns_half_of_each_head_and_raises_theta(ratio):
    """GLM-4-9b: rope_ratio 500 is theta 5,000,000; the first half of a head, neighbours paired."""
    from transformers.models.glm.modeling_glm import GlmRotaryEmbedding, apply_rotary_pos_emb

    rope = {"rope_type": "default", "rope_theta": 10_000.0 * ratio, "partial_rotary_factor": 0.5}
    theirs = tf.GlmConfig(hidden_size=64, num_attention_heads=2, head_dim=32, rope_parameters=rope)
    q, k, positions = torch.randn(2, 2, 9, 32), torch.randn(2, 2, 9, 32), torch.arange(9)[None]
    expected = apply_rotary_pos_emb(q, k, *GlmRotaryEmbedding(theirs)(q, positions))
    ours = Rope(16, 10_000.0 * ratio, interleaved=True)
    tables = ours.tables(positions, torch.float32)
    for x, y in zip((q, k), expected, strict=True):
        assert_close(ours.rotate(x.transpose(1, 2), tables).transpose(1, 2), y)
        assert torch.equal(y[..., 16:], x[..., 16:])
    # both layouts, partial: permuting the turned features alone
    order = interleaved_to_half_split(torch.arange(16)[:, None].float(), 1)[:, 0].long()
    half = Rope(16, 10_000.0 * ratio)
    permuted = torch.cat((q[..., order], q[..., 16:]), -1).transpose(1, 2)
    turned = half.rotate(permuted, half.tables(positions, torch.float32)).transpose(1, 2)
    assert_close(turned[..., :16], expected[0][..., order])


@pytest.mark.row("LAY-45", reference="hand calculation: theta * s^(d / (d - 2))")
def test_ntk_scaling_raises_theta():
    plain, scaled = Rope(32), Rope(32, scaling=NTKScaling(4.0))
    assert_close(scaled.frequencies(), Rope(32, theta=10_000.0 * 4 ** (32 / 30)).frequencies(), atol=0, rtol=1e-6)
    ratio = plain.frequencies() / scaled.frequencies()
    assert ratio[0] == 1
    assert ratio[-1].item() == pytest.approx(4)  # the longest wave is interpolated exactly
    assert (ratio.diff() > 0).all()


@pytest.mark.row("LAY-45", reference="hand calculation: Peng et al. 2023, section 3.2 and equation 22")
def test_yarn_keeps_short_waves_stretches_long_ones_and_sharpens():
    rope = Rope(128, scaling=YarnScaling(16.0, 4096))
    turns = 4096 * Rope(128).frequencies() / (2 * math.pi)
    ratio = Rope(128).frequencies() / rope.frequencies()
    assert (ratio[turns > 40] == 1).all()
    assert_close(ratio[turns < 0.8], torch.full_like(ratio[turns < 0.8], 16))
    assert rope.scaling.magnitude == pytest.approx(0.1 * math.log(16) + 1)
    q, at = torch.randn(1, 1, 1, 128), torch.tensor([[5]])
    norms = [r.rotate(q, r.tables(at, torch.float32)).norm() for r in (rope, Rope(128))]
    assert (norms[0] / norms[1]).item() == pytest.approx(rope.scaling.magnitude)
    assert_close(Rope(128, scaling=LinearScaling(16.0)).frequencies(), Rope(128).frequencies() / 16)


@pytest.mark.parametrize(
    ("rope", "message"),
    [
        (dict(rope_type="longrope", factor=2.0), "needs short_factor and long_factor"),
        (dict(rope_type="yarn"), "yarn needs factor"),
        (dict(rope_type="longrope", short_factor=[1.0], long_factor=[1.0]), "1 numbers, but a head has 16 frequencies"),
        (dict(rope_type="linear", factor=2.0, partial_rotary_factor=0.5), "turn whole heads"),
        (dict(rope_type="spiral"), "spiral"),
        (dict(rope_type="linear", factor=2.0, swirl=1), "swirl"),
    ],
)
def test_settings_that_do_not_fit_are_refused(rope, message):
    with pytest.raises(UsageError, match=message):
        config_from_hf(SHAPE | {"model_type": "llama", "rope_parameters": rope})
