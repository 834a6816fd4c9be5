"""State space duality against its own definition, long texts, and the two layouts of checkpoints."""

import json
from typing import Any

import pytest
import torch
import transformers as tf
from torch.testing import assert_close

from families.mamba import MAMBA
from families.mamba2 import MAMBA2
from families.tiny import ids, randomised
from groundup.base.errors import CheckpointError, UsageError
from groundup.layers.norms import GatedRMSNorm
from groundup.layers.state_space_duality import chunked, recurrent
from groundup.models.catalogue import config_from_hf, config_of_size, model_class
from groundup.models.configs.mamba2 import Mamba2Config
from groundup.models.formats.formats import find_format
from groundup.models.formats.mamba_ssm import config_of, published_config, save_mamba_ssm
from groundup.models.hub import build_model, load_model
from right_padding import assert_rows_go_on_from_their_last_token


def inputs(length, strongest, dtype=torch.float64, heads=4, groups=2):
    """X, logarithms of decays (among weak ones every third as strong as `strongest`), b, c, state."""
    torch.manual_seed(0)
    a = -torch.rand(2, length, heads, dtype=dtype) * 0.1
    a[:, ::3] *= 10 * strongest
    x, b = torch.randn(2, length, heads, 3, dtype=dtype), torch.randn(2, length, groups, 5, dtype=dtype)
    return x, a, b, torch.randn_like(b), torch.randn(2, heads, 3, 5, dtype=dtype)


def defined(x, a, b, c, state):
    """The recurrence in the plainest form, without the module's code."""
    share = x.shape[2] // b.shape[2]
    b, c = b.repeat_interleave(share, 2), c.repeat_interleave(share, 2)
    inflow, decay, states = x[..., None] * b[..., None, :], torch.exp(a)[..., None, None], [state]
    for t in range(x.shape[1]):
        states.append(decay[:, t] * states[-1] + inflow[:, t])
    return torch.einsum("btHpn,btHn->btHp", torch.stack(states[1:], dim=1), c), states[-1]


def relative(found, wanted):
    return ((found.double() - wanted).abs().max() / wanted.abs().max()).item()


@pytest.mark.parametrize(
    ("length", "chunk"), [(1, 64), (2, 64), (63, 64), (64, 64), (65, 64), (50, 16), (48, 16), (9, 1)]
)
def test_chunks_and_steps_give_the_recurrence_and_its_gradients(length, chunk):
    everything: Any = [tensor.requires_grad_() for tensor in inputs(length, strongest=1.0)]
    wanted = defined(*everything)
    for found in (chunked(*everything, None, chunk), recurrent(*everything)):
        for mine, theirs in zip(found, wanted, strict=True):
            assert_close(mine, theirs)
        weights = [torch.randn_like(one) for one in wanted]
        gradients = [
            torch.autograd.grad(
                [(one * w).sum() for one, w in zip(pair, weights, strict=True)], everything, retain_graph=True
            )
            for pair in (found, wanted)
        ]
        assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("strongest", [1.0, 30.0, 1e4])
def test_4096_tokens_with_strong_decays_in_float32(strongest):
    """Both forms against the definition in float64, and against each other; gradients are finite."""
    everything: Any = inputs(4096, strongest, torch.float32)
    wanted = defined(*(tensor.double() for tensor in everything))
    everything = [tensor.requires_grad_() for tensor in everything]
    matrices, steps = chunked(*everything), recurrent(*everything)
    for mine, theirs in zip(matrices, wanted, strict=True):
        assert relative(mine, theirs) < 1e-5
    for mine, theirs in zip(matrices, steps, strict=True):
        assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    gradients = torch.autograd.grad(matrices[0].square().mean(), everything)
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_weak_decays_are_exact_after_a_strong_one():
    """Differences of plain running sums would lose the weak ones: e^-1e-4 a token after e^-60s."""
    x, a, b, c, state = inputs(64, 1.0, torch.float32)
    a[:, :32], a[:, 32:] = -60.0, -1e-4
    wanted = defined(*(tensor.double() for tensor in (x, a, b, c, state)))
    for mine, theirs in zip(chunked(x, a, b, c, state), wanted, strict=True):
        assert relative(mine, theirs) < 1e-6


def test_documents_of_any_length_begin_with_nothing():
    """Ends within, at and over the borders of chunks."""
    x, a, b, c, _ = inputs(100, 1.0)
    lengths = [5, 11, 16, 1, 40, 27]
    documents = torch.repeat_interleave(torch.tensor([3, 1, 3, 0, 2, 5]), torch.tensor(lengths))[None].expand(2, -1)
    found, state = chunked(x, a, b, c, None, documents, chunk=16)
    for length, end in zip(lengths, torch.tensor(lengths).cumsum(0).tolist(), strict=True):
        part = slice(end - length, end)
        alone, last = chunked(x[:, part], a[:, part], b[:, part], c[:, part], None, chunk=16)
        assert_close(found[:, part], alone)
        if end == 100:
            assert_close(state, last)


def tiny(**changes):
    torch.manual_seed(0)
    config = config_from_hf(tf.Mamba2Config(**{**MAMBA2, **changes}).to_dict())
    return randomised(model_class(config).build(config))


def test_a_long_text_in_chunks_of_any_size_equals_one_pass():
    """150 tokens, more than two chunks: calls of 70, 1, 64 and 15 tokens, and packed and padded rows of the same."""
    model, x = tiny(use_bias=True), ids(length=150)
    with torch.no_grad():
        whole, state = model(x), model.make_state(2, 150)
        parts = [model(part, state=state) for part in x.split([70, 1, 64, 15], dim=1)]
        assert_close(torch.cat(parts, 1), whole, rtol=1e-4, atol=1e-5)
        documents = torch.tensor([[1] * 70 + [2] * 80, [0] * 30 + [1] * 120])
        packed = model(x, documents=documents)
        assert_close(packed[:1, 70:], model(x[:1, 70:]), rtol=1e-4, atol=1e-5)
        assert_close(packed[1:, 30:], model(x[1:, 30:]), rtol=1e-4, atol=1e-5)


def test_right_padding_and_chunks_equal_each_row_alone():
    """Biased projections make padding more than zeros."""
    assert_rows_go_on_from_their_last_token(tiny(use_bias=True))


def test_memory_in_decoding_does_not_grow():
    model = tiny()
    state, held = model.make_state(1, 10_000), set()
    with torch.no_grad():
        for length in (1, 1, 100, 1, 300, 1):
            model(ids(rows=1, length=length), state=state)
            held.add(state.nbytes)
            tensors = [t for layer in state.layers.values() for t in layer.tensors.values()]
            assert sum(t.untyped_storage().nbytes() for t in tensors) <= 4 * state.nbytes
    assert len(held) == 1


def test_biased_projections_equal_transformers(tmp_path):
    torch.manual_seed(0)
    config = tf.Mamba2Config(**MAMBA2, use_bias=True)
    theirs = randomised(tf.AutoModelForCausalLM.from_config(config, dtype=torch.float32))
    theirs.save_pretrained(tmp_path)
    x = ids(length=80)
    with torch.no_grad():
        assert_close(load_model(tmp_path)(x), theirs(x).logits)


def test_time_steps_are_limited_in_steps_as_in_whole_texts():
    """Limits that bind: other than transformers', our single steps heed them."""
    model, x = tiny(time_step_limit=(0.5, 0.6)), ids()
    free = tiny()
    with torch.no_grad():
        state = model.make_state(2, 12)
        stepped = torch.cat([model(x[:, t : t + 1], state=state) for t in range(12)], 1)
        assert_close(stepped, model(x))
        assert (model(x) - free(x)).abs().max() > 1e-3


@pytest.mark.parametrize("groups", [1, 3])
def test_gated_norm_equals_transformers(groups):
    from transformers.models.mamba2.modeling_mamba2 import MambaRMSNormGated

    torch.manual_seed(0)
    theirs, ours = MambaRMSNormGated(12, 12 // groups, eps=1e-3), GatedRMSNorm(12, 1e-3, groups)
    weight = torch.randn(12)
    theirs.weight.data, ours.weight.data = weight, weight
    x, z = torch.randn(2, 5, 12), torch.randn(2, 5, 12)
    assert_close(ours(x, z), theirs(x, z))


def test_gated_norm_with_the_norm_first_equals_transformers():
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextRMSNormGated

    torch.manual_seed(0)
    theirs, ours = Qwen3NextRMSNormGated(12, eps=1e-3), GatedRMSNorm(12, 1e-3, gate_first=False)
    weight = torch.randn(12)
    theirs.weight.data, ours.weight.data = weight, weight
    x, z = torch.randn(2, 5, 12), torch.randn(2, 5, 12)
    assert_close(ours(x, z), theirs(x, z))


def test_an_endless_limit_is_read_and_written(tmp_path):
    """A bare Infinity as Codestral Mamba's file has it, and the spelling of transformers 5."""
    build_model(config_from_hf(tf.Mamba2Config(**MAMBA2).to_dict())).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["time_step_limit"] == [0.0, {"__float__": "Infinity"}]
    assert tf.AutoConfig.from_pretrained(tmp_path).time_step_limit[1] == float("inf")
    bare = json.dumps(written | {"time_step_limit": [0.1, float("inf")]})
    assert "Infinity]" in bare
    (tmp_path / "config.json").write_text(bare)
    assert load_model(tmp_path).config.time_step_limit == (0.1, None)
    (tmp_path / "config.json").write_text(json.dumps(written | {"hidden_size": float("inf")}))
    with pytest.raises(CheckpointError, match="hidden_size"):
        load_model(tmp_path)


PUBLISHED = {
    "mamba-130m": """{"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {}, "rms_norm": true,
    "residual_in_fp32": true, "fused_add_norm": true, "pad_vocab_size_multiple": 8}""",
    "mamba2-130m": """{"d_model": 768, "d_intermediate": 0, "n_layer": 24, "vocab_size": 50277,
    "ssm_cfg": {"layer": "Mamba2"}, "attn_layer_idx": [], "attn_cfg": {}, "rms_norm": true, "residual_in_fp32": true,
    "fused_add_norm": true, "pad_vocab_size_multiple": 16, "tie_embeddings": true}""",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_authors_configs_are_those_of_the_published_sizes(name):
    config = config_of(json.loads(PUBLISHED[name]))
    assert config.to_hf() == config_of_size(name).to_hf()
    assert config_of(published_config(config)).to_hf() == config.to_hf()


def test_the_authors_layout_goes_both_ways(tmp_path):
    """Their names as their code gives them, `backbone.embedding` and a tied head that is stored twice."""
    for theirs in (tf.Mamba2Config(**MAMBA2, tie_word_embeddings=True), tf.MambaConfig(**MAMBA, time_step_rank=5)):
        config = config_from_hf(theirs.to_dict())
        folder, model = tmp_path / config.family(), randomised(build_model(config))
        save_mamba_ssm(model, folder)
        tensors = torch.load(folder / "pytorch_model.bin")
        assert "backbone.embedding.weight" in tensors
        assert "backbone.layers.0.mixer.A_log" in tensors
        torch.save(tensors | {"lm_head.weight": tensors["backbone.embedding.weight"]}, folder / "pytorch_model.bin")
        assert find_format(folder).name.startswith("mamba_ssm")
        again = load_model(folder)
        with torch.no_grad():
            assert torch.equal(again(ids()), model(ids()))
        with pytest.raises(UsageError, match="name a new folder"):
            save_mamba_ssm(model, folder)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"rms_norm": False}, "`rms_norm` is False; only True"),
        ({"attn_layer_idx": [3]}, "`attn_layer_idx` is"),
        ({"d_inermediate": 4}, "`d_inermediate` is not understood here. Did you mean `d_intermediate`"),
        ({"ssm_cfg": {"layer": "Mamba3"}}, "Mamba1 and Mamba2 are known"),
        ({"ssm_cfg": {"layer": "Mamba2", "norm_before_gate": True}}, "`ssm_cfg.norm_before_gate` is True"),
        ({"ssm_cfg": {"layer": "Mamba2", "headim": 4}}, "Did you mean `headdim`"),
        ({"ssm_cfg": 3}, "must be an object"),
    ],
)
def test_authors_configs_that_are_not_built_are_refused(change, fault):
    with pytest.raises(CheckpointError, match=fault):
        config_of(json.loads(PUBLISHED["mamba2-130m"]) | change)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"num_attention_heads": 7}, "7 \\* 64 is 448, and 2 \\* 4096 is 8192"),
        ({"n_groups": 3}, "n_groups=3 cannot share 128 heads evenly"),
        ({"time_step_limit": (0.5, 0.1)}, "0 <= least <= largest, not 0.5 and 0.1"),
        ({"time_step_limit": (-1.0, None)}, "not -1 and None"),
        ({"hidden_act": "gelu"}, "hidden_act"),
    ],
)
def test_wrong_shapes_are_refused(change, fault):
    with pytest.raises(UsageError, match=fault):
        Mamba2Config.parse(change)
