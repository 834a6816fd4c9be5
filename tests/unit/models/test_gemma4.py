"""Gemma 4's parts one by one, each against the formula written out, and what its configs refuse."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from groundup.base.errors import CheckpointError, UsageError
from groundup.layers.context import Context
from groundup.layers.moe.gates.normed_top_k import NormedTopKGate
from groundup.layers.norms import Float32RMSNorm, PlainRMSNorm
from groundup.layers.per_layer_inputs import SHARED, PerLayerEmbedding
from groundup.layers.rope import Rope
from groundup.layers.rotary_scaling import ProportionalScaling
from groundup.models.catalogue import config_from_hf
from groundup.models.configs.gemma4 import Gemma4Config
from groundup.models.hub import build_model, load_model
from groundup.models.resize import resize_embeddings
from groundup.training.activation_checkpointing import checkpointed

SHAPE = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4}
SHAPE |= {"num_key_value_heads": 2, "head_dim": 8, "vocab_size_per_layer_input": 64, "sliding_window": 4}
TURNS = ["sliding_attention", "full_attention"] * 2
SMALL = {"layer_types": TURNS, "hidden_size_per_layer_input": 6, "num_kv_shared_layers": 2, "global_head_dim": 16}
EXPERTS = {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 8}


def read(**changes):
    return config_from_hf({"model_type": "gemma4_text", **SHAPE, **SMALL} | changes)


def small(**changes):
    torch.manual_seed(0)
    return build_model(read(**changes)).eval()


def ids(length=7):
    return torch.randint(0, 64, (2, length), generator=torch.Generator().manual_seed(1))


def test_of_the_waves_of_a_whole_head_a_share_turns():
    x = torch.randn(1, 5, 2, 16, generator=torch.Generator().manual_seed(0))
    positions = torch.arange(3, 8)[None]
    rope, whole = Rope(16, 300.0, scaling=ProportionalScaling(0.25)), Rope(16, 300.0)
    turned, all_turned = (r.rotate(x, r.tables(positions, x.dtype)) for r in (rope, whole))
    moving = [0, 1, 8, 9]  # the first two of eight pairs, half-split
    assert_close(turned[..., moving], all_turned[..., moving])
    still = [i for i in range(16) if i not in moving]
    assert torch.equal(turned[..., still], x[..., still])
    slower = Rope(16, 300.0, scaling=ProportionalScaling(0.25, factor=2.0))
    assert_close(slower.frequencies(), rope.frequencies() / 2)


def test_norms_against_their_formulas():
    x = torch.randn(3, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    exact = x.double() / (x.double().pow(2).mean(-1, keepdim=True) + 0.1).sqrt()
    assert torch.equal(PlainRMSNorm(0.1)(x), exact.bfloat16())
    norm = Float32RMSNorm(16, 0.1).bfloat16()
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.1, 3, 16))
    assert torch.equal(norm(x), (exact * norm.weight.double()).bfloat16())  # one rounding, at the end


def test_inputs_of_every_layer_against_the_formula():
    torch.manual_seed(0)
    embed = PerLayerEmbedding(20, 8, layers=3, width=4, norm=Float32RMSNorm(4, 0.1))
    x, context = torch.tensor([[3, 19, 0]]), Context(torch.arange(3)[None])
    vectors = embed(x, context)
    assert_close(vectors, embed.tokens.weight[x] * 8**0.5)
    projected = (vectors @ embed.projection.weight.T).view(1, 3, 3, 4) / 8**0.5
    mixed = projected / (projected.pow(2).mean(-1, keepdim=True) + 0.1).sqrt()
    own = 2 * embed.per_layer.weight[x].view(1, 3, 3, 4)
    assert_close(context.shared[SHARED], (mixed + own) / 2**0.5)
    given = Context(torch.arange(3)[None])
    assert torch.equal(embed(vectors.detach(), given), vectors)
    assert_close(given.shared[SHARED], mixed)  # vectors have no row of their own


def test_the_gate_against_the_formula():
    torch.manual_seed(0)
    gate = NormedTopKGate(8, 4, 2, eps=0.1)
    with torch.no_grad():
        gate.scale.uniform_(0.5, 40)
        gate.expert_scale.uniform_(0.5, 2)
    x = torch.randn(5, 8)
    seen = x / (x.pow(2).mean(-1, keepdim=True) + 0.1).sqrt() * gate.scale / 8**0.5
    probabilities = (seen @ gate.weight.T).softmax(-1)
    routing = gate(x)
    for token in range(5):
        first, second = probabilities[token].argsort(descending=True)[:2].tolist()
        assert routing.experts[token].tolist() == [first, second]
        total = probabilities[token, first] + probabilities[token, second]
        wanted = [probabilities[token, e] / total * gate.expert_scale[e] for e in (first, second)]
        assert_close(routing.weights[token], torch.stack(wanted))


def test_borrowing_layers_have_no_keys_and_no_state():
    model = small()
    assert list(model.make_state(1, 8).layers) == ["blocks.0.attn", "blocks.1.attn"]
    names = {name for name, _ in model.named_parameters() if "blocks.2.attn" in name}
    assert names == {f"blocks.2.attn.{name}.weight" for name in ("q_proj", "o_proj", "q_norm")}
    assert [model.blocks[str(i)].attn.source for i in (2, 3)] == ["blocks.0.attn", "blocks.1.attn"]
    with pytest.raises(UsageError, match=r"blocks.2.attn reads the keys of blocks.0.attn, which is not in this part"):
        model.blocks["2"](torch.zeros(1, 3, 32), Context(torch.arange(3)[None]))
    with pytest.raises(UsageError, match="layer 0 reads inputs of the embedding, which is not in this part"):
        model.blocks["0"](torch.zeros(1, 3, 32), Context(torch.arange(3)[None]))


def test_a_borrowing_layer_learns_through_the_keys_of_its_lender():
    model = small()
    model.blocks["0"].attn.o_proj.weight.data.zero_()  # its own result is nothing, so its keys serve layer 2 alone
    model(ids()).square().sum().backward()
    assert model.blocks["0"].attn.k_proj.weight.grad.abs().max() > 0


def test_blocks_that_are_computed_twice_lend_the_same_keys():
    model = small()

    def gradients():
        return torch.autograd.grad(model(ids()).square().sum(), list(model.parameters()))

    plain = gradients()
    with checkpointed(model):
        assert_close(gradients(), plain)


def test_more_token_ids_get_rows_in_both_tables(tmp_path):
    model = small()
    before = model(ids())
    resize_embeddings(model, 70)
    assert_close(model(ids())[..., :64], before)
    assert (model.config.vocab_size, model.embed.per_layer.num_embeddings) == (70, 70)
    assert_close(model.embed.per_layer.weight[69], model.embed.per_layer.weight[:64].mean(0))
    model.save_pretrained(tmp_path)
    assert torch.equal(load_model(tmp_path)(torch.tensor([[69]])), model(torch.tensor([[69]])))


def test_keys_that_released_files_hold_for_borrowing_layers_are_left(tmp_path):
    model = small()
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    unread = {"k_proj": (32, 32), "v_proj": (32, 32), "k_norm": (16,)}
    tensors |= {f"model.layers.3.self_attn.{name}.weight": torch.ones(shape) for name, shape in unread.items()}
    save_file(tensors, file, metadata={"format": "pt"})
    assert torch.equal(load_model(tmp_path)(ids()), model(ids()))
    save_file(tensors | {"model.layers.1.self_attn.v_norm.weight": torch.ones(16)}, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"blocks\.1\.attn\.v_norm"):
        load_model(tmp_path)


def test_what_files_tell_layer_by_layer_is_read():
    told = {"1": {"head_dim": 24, "num_key_value_heads": 1}, "3": {"head_dim": 24, "num_key_value_heads": 1}}
    config = read(global_head_dim=None, attention_k_eq_v=True, per_layer_config=told)
    assert [(config.head_width(i), config.kv_heads(i)) for i in range(4)] == [(8, 2), (24, 1)] * 2
    assert (config.to_hf()["global_head_dim"], config.to_hf()["num_global_key_value_heads"]) == (24, 1)
    assert "per_layer_config" not in config.to_hf()
    assert read(per_layer_config={"1": {}, "3": {}}, global_head_dim=None).head_width(1) == 8
    bare = config_from_hf({"model_type": "gemma4_text"})
    assert (bare.global_head_dim, bare.hidden_size_per_layer_input, bare.sliding_window) == (512, 256, 512)


def test_the_last_layer_sees_all_and_borrowers_may_be_wider():
    config = read(layer_types=["full_attention", *["sliding_attention"] * 3], use_double_wide_mlp=True)
    assert [config.window(i) for i in range(4)] == [None, 4, 4, None]
    assert [config.mlp_width(i) for i in range(4)] == [48, 48, 96, 96]
    assert [config.lends(i) for i in range(4)] == [True, True, False, False]
    assert not any(read(num_kv_shared_layers=0).lends(i) for i in range(4))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_kv_shared_layers": 3}, "num_kv_shared_layers is 3 of 4, which leaves no layer of full_attention"),
        ({"num_kv_shared_layers": 4}, "num_kv_shared_layers is 4 of 4"),
        ({"vocab_size_per_layer_input": 63}, r"\(63\) must not be less than vocab_size \(64\)"),
        ({"num_global_key_value_heads": 3, "attention_k_eq_v": True}, r"\(4\) .* key-value heads of layer 1 \(3\)"),
        ({"enable_moe_block": True, "num_experts": 4}, "needs top_k_experts and moe_intermediate_size"),
        ({**EXPERTS, "top_k_experts": 5}, "5"),
        ({"use_bidirectional_attention": "all"}, "use_bidirectional_attention 'all' is not supported for gemma4_text"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "rope_type proportional, not 'yarn'"),
        ({"rope_parameters": {"sliding_attention": {"rope_type": "linear"}}}, "not scaled, but rope_type is 'linear'"),
        ({"per_layer_config": {"1": {"head_dim": 8}, "3": {"head_dim": 4}}}, "alike for all"),
        ({"per_layer_config": {"1": {"head_dim": 8}}}, "layers with full_attention, and no others"),
        ({"per_layer_config": {"1": {"sliding_window": 2}, "3": {"sliding_window": 2}}}, "may tell head_dim"),
        ({"attn_logit_softcapping": 5.0}, "attn_logit_softcapping does nothing in gemma4_text models"),
        ({"query_pre_attn_scalar": 256}, "query_pre_attn_scalar is 1 in every gemma4_text model, not 256"),
    ],
)  # fmt: skip
def test_wrong_configs_are_refused_with_names_and_numbers(changes, words):
    with pytest.raises((CheckpointError, UsageError), match=words):
        read(**changes)


def test_a_new_config_is_small_unless_it_says_more():
    config = Gemma4Config(**SHAPE)
    assert (config.hidden_size_per_layer_input, config.head_width(3), config.lends(0)) == (0, 8, False)
