"""The faster view for decoding gives what the model itself gives."""

import threading

import pytest
import torch
from torch import nn

from groundup.generation.few_rows import MOST_ROWS, for_decoding, view
from groundup.generation.few_rows.attention import FewRowsAttention
from groundup.generation.few_rows.block import FewRowsBlock
from groundup.generation.few_rows.feed_forward import FewRowsExperts, FewRowsMLP, kind_of
from groundup.generation.few_rows.linear import FewRowsLinear
from groundup.generation.few_rows.norms import FewRowsNorm
from groundup.generation.generate import generate
from groundup.layers.activations import ACTIVATIONS, activation
from groundup.layers.feedforward import MLP, GatedMLP
from groundup.layers.moe.experts import Experts, GatedExperts
from groundup.layers.moe.routing import Routing
from groundup.layers.norms import OffsetRMSNorm, RMSNorm
from groundup.models.catalogue import FAMILIES
from groundup.models.configs.gpt2 import GPT2Config
from groundup.models.configs.llama import LlamaConfig
from groundup.models.configs.rnn import RNNConfig
from groundup.models.hub import build_model
from groundup.observe import observe
from standin import Bytes

pytest.importorskip("numba")

LLAMA = {"vocab_size": 258, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
LLAMA |= {"num_attention_heads": 4, "max_position_embeddings": 64}


LIKE_LLAMA = [
    f
    for f in FAMILIES
    if f != "gpt2" and not f.startswith("rwkv") and LLAMA.keys() <= FAMILIES[f].config.model_fields.keys()
]


def llama(dtype=None, **changes):
    torch.manual_seed(0)
    return build_model(LlamaConfig(**LLAMA | {"initializer_range": 0.2} | changes), dtype=dtype).eval()


def gpt2():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=258, hidden_size=64, num_hidden_layers=2, num_attention_heads=4)
    return build_model(config).eval()


def in_float32(model):
    """The same numbers, stored in float32."""
    wide = build_model(model.config).eval()
    wide.load_state_dict({name: weight.float() for name, weight in model.state_dict().items()})
    return wide


@pytest.mark.parametrize("rows", [1, 2, 5, 6, 7, 16, MOST_ROWS + 1])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 1), (64, 13), (128, 48), (96, 10)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear(rows, inputs, outputs, dtype):
    torch.manual_seed(rows)
    linear = nn.Linear(inputs, outputs, dtype=dtype)
    x = torch.randn(rows, 1, inputs)
    want = x.double() @ linear.weight.double().T + linear.bias.double()
    with torch.inference_mode():
        found = FewRowsLinear(linear)(x)
        strided = FewRowsLinear(linear)(torch.stack((x, x), -1)[..., 0])
    torch.testing.assert_close(found, want.float())
    torch.testing.assert_close(strided, found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 7])
def test_a_linear_layer_large_enough_for_several_threads(rows, dtype):
    torch.manual_seed(0)
    linear = nn.Linear(512, 515, dtype=dtype)
    assert linear.weight.numel() > products().FEWEST_FOR_THREADS
    x = torch.randn(rows, 1, 512)
    with torch.inference_mode():
        found = FewRowsLinear(linear)(x)
    want = x.double() @ linear.weight.double().T + linear.bias.double()
    torch.testing.assert_close(found, want.float(), atol=1e-5, rtol=1e-5)


def test_experts_large_enough_for_several_threads():
    torch.manual_seed(0)
    experts = GatedExperts(3, 256, 320)
    assert 2 * experts.up_proj.weight[0].numel() > products().FEWEST_FOR_THREADS
    routing = Routing(torch.tensor([[2, 0]]), torch.tensor([[0.7, 0.3]]), torch.rand(1, 3), 3)
    x = torch.randn(1, 256)
    with torch.inference_mode():
        torch.testing.assert_close(FewRowsExperts(experts)(x, routing), experts(x, routing), atol=1e-5, rtol=1e-5)


def test_attention_long_enough_for_several_threads():
    rows, tokens = MOST_ROWS, 60
    model = llama(num_key_value_heads=2)
    assert 2 * rows * 64 * tokens > products().FEWEST_FOR_THREADS
    ids, view = torch.randint(0, 258, (rows, tokens + 1)), for_decoding(model, fewest_parameters=0)
    with torch.inference_mode():
        states = [m.make_state(rows, tokens + 1) for m in (view, model)]
        for part in (ids[:, :tokens], ids[:, tokens:]):
            found, want = (m(part, state=s) for m, s in zip((view, model), states, strict=True))
        torch.testing.assert_close(found, want, atol=2e-5, rtol=1e-4)


def products():
    """The module with the constants of the compiled functions, which needs numba."""
    from groundup.generation.few_rows.kernels import products

    return products


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"num_key_value_heads": 2}, {"tie_word_embeddings": True}, {"head_dim": 32}, {"mlp_bias": True}],
    ids=["plain", "grouped", "tied", "wide heads", "biases"],
)
def test_steps_of_a_llama(changes, dtype):
    model = llama(dtype, **changes)
    view, plain = for_decoding(model, fewest_parameters=0), in_float32(model)
    assert isinstance(view.blocks["0"], FewRowsBlock)
    assert_same_steps(view, plain, even=True)
    assert_same_steps(view, plain, even=False)


# What the shape of a family needs besides.
OLDER = {
    "openai-gpt": {},
    "gpt3": {"window_size": 4},
    "gpt_neo": {"window_size": 4},
    "gpt_neox": {},
    "bloom": {},
    "falcon": {"num_kv_heads": 2, "new_decoder_architecture": True},
    "gpt_pangu": {},
    "gptj": {"rotary_dim": 8},
    "phi": {"intermediate_size": 128, "num_key_value_heads": 2},
    "opt": {"do_layer_norm_before": False, "word_embed_proj_dim": 32},
}


LATENT = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 64}
LATENT |= {"kv_lora_rank": 64, "first_k_dense_replace": 1}
# What the mixtures need besides.
MIXTURES = {
    "mixtral": {"num_key_value_heads": 2, "num_local_experts": 4},
    "qwen2_moe": {"num_key_value_heads": 2, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64},
    "qwen3_moe": {"num_key_value_heads": 2, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64},
    "gpt_oss": {"num_key_value_heads": 2, "num_local_experts": 4, "head_dim": 16, "sliding_window": 4},
    "deepseek_v2": LATENT,
    "deepseek_v3": LATENT,
}
# GLM's first models attend by marks in the prompt: their attention goes step by step.
BY_MARKS = ("glm_2021", "glm_130b", "chatglm_6b")
WITHOUT_ATTENTION = ("deepseek_v2", "deepseek_v3")
SHARED = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
# Their layers have a memory of one size, or attention with gates: both go step by step, between faster projections.
HYBRIDS = {"qwen3_next": SHARED, "qwen3_5_text": {}, "qwen3_5_moe_text": {**SHARED, "intermediate_size": 5632}}
ELSEWHERE = (*OLDER, *MIXTURES, *BY_MARKS, *HYBRIDS, "mamba", "mamba2")
# Blocks in one call: pre-norm, and nothing in them that has to ask Python.
WHOLE = {
    *("llama", "mistral", "qwen2", "qwen3", "phi3", "olmo", "gemma", "glm", "chatglm", "qwen", "parts"),
    *("gpt3", "gpt_neo", "bloom", "gpt_pangu"),
}


def kinds(view):
    return {type(module) for module in view.modules()}


@pytest.mark.parametrize("family", [name for name in LIKE_LLAMA if name not in ELSEWHERE])  # theirs are elsewhere
def test_steps_of_every_family(family):
    shape = LLAMA | {"initializer_range": 0.2, "model_type": family}
    window = {"sliding_window": 4, "use_sliding_window": True, "max_window_layers": 1}
    window |= {"head_dim": 16, "intermediate_size": 256} if family == "qwen" else {}
    config = FAMILIES[family].config
    torch.manual_seed(0)
    model = build_model(config(**shape | {name: v for name, v in window.items() if name in config.model_fields})).eval()
    view = for_decoding(model, fewest_parameters=0)
    assert FewRowsMLP in kinds(view)
    assert (FewRowsAttention in kinds(view)) == (family != "gemma4_text")  # whose layers borrow keys from each other
    assert (FewRowsBlock in kinds(view)) == (family in WHOLE)
    assert_same_steps(view, model, even=True)
    assert_same_steps(view, model, even=False)


@pytest.mark.parametrize("family", MIXTURES)
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_steps_of_the_mixtures(family, dtype):
    shape = LLAMA | {"initializer_range": 0.2, "model_type": family, "vocab_size": 2048} | MIXTURES[family]
    torch.manual_seed(0)
    model = build_model(FAMILIES[family].config(**shape), dtype=dtype).eval()
    view = for_decoding(model, fewest_parameters=0)
    assert FewRowsExperts in kinds(view)
    assert (FewRowsAttention in kinds(view)) == (family not in WITHOUT_ATTENTION)
    plain = in_float32(model)
    assert_same_steps(view, plain, even=True)
    assert_same_steps(view, plain, even=False)


@pytest.mark.parametrize("family", HYBRIDS)
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_steps_of_the_hybrids(family, dtype):
    shape = LLAMA | {"model_type": family, "vocab_size": 2048, "initializer_range": 0.2, "num_key_value_heads": 2}
    shape |= {"head_dim": 16, "linear_key_head_dim": 16, "linear_value_head_dim": 16, "linear_num_key_heads": 2}
    shape |= {"linear_num_value_heads": 4, "layer_types": ["linear_attention", "full_attention"]} | HYBRIDS[family]
    torch.manual_seed(0)
    model = build_model(FAMILIES[family].config(**shape), dtype=dtype).eval()
    view = for_decoding(model, fewest_parameters=0)
    assert FewRowsAttention not in kinds(view)
    assert (FewRowsExperts if "num_experts" in HYBRIDS[family] else FewRowsMLP) in kinds(view)
    plain = in_float32(model)
    # the norm in a DeltaNet divides what a row's first token finds by its size, which is next to nothing
    assert_same_steps(view, plain, even=True, atol=2e-4)
    assert_same_steps(view, plain, even=False, atol=2e-4)


@pytest.mark.parametrize("family", BY_MARKS)
def test_networks_alone_where_attention_goes_by_marks(family):
    marks = {"gmask_token_id": 2001, "bos_token_id": 2004, "mask_token_id": 2000}
    shape = LLAMA | {"model_type": family, "vocab_size": 2048, "initializer_range": 0.2} | marks
    config = FAMILIES[family].config
    torch.manual_seed(0)
    model = build_model(config(**{name: value for name, value in shape.items() if name not in config.fixed})).eval()
    view = for_decoding(model, fewest_parameters=0)
    assert FewRowsAttention not in kinds(view)
    ids = torch.randint(0, 2000, (2, 6))
    ids[:, 3], ids[:, 4] = 2001, 2004
    with torch.inference_mode():
        states = [m.make_state(2, 8) for m in (view, model)]
        for part in (ids[:, :5], ids[:, 5:]):
            found, want = (m(part, state=s) for m, s in zip((view, model), states, strict=True))
            torch.testing.assert_close(found, want, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", OLDER)
def test_steps_of_the_older_families(family):
    shape = {name: value for name, value in LLAMA.items() if name != "intermediate_size"}
    shape |= {"initializer_range": 0.2, "max_position_embeddings": 1024, "vocab_size": 2048}
    torch.manual_seed(0)
    model = build_model(FAMILIES[family].config(**shape | OLDER[family])).eval()
    view = for_decoding(model, fewest_parameters=0)
    assert FewRowsAttention in kinds(view)
    assert (FewRowsBlock in kinds(view)) == (family in WHOLE)
    assert_same_steps(view, model, even=True)
    assert_same_steps(view, model, even=False)


@pytest.mark.parametrize("cell", ["simple", "lstm", "gru", "gru_reset_first"])
def test_steps_of_a_recurrent_model(cell):
    torch.manual_seed(0)
    shape = {"vocab_size": 258, "hidden_size": 128, "num_hidden_layers": 2, "cell": cell}
    model = build_model(RNNConfig(**shape)).eval()
    view = for_decoding(model, fewest_parameters=0)
    assert view is not model
    assert isinstance(view.blocks["0"].rnn.cell.state_proj, FewRowsLinear)
    assert_same_steps(view, model, even=True)
    assert_same_steps(view, model, even=False)


@pytest.mark.parametrize(
    ("family", "own"), [("mamba", {}), ("mamba2", {"num_attention_heads": 8, "head_dim": 16, "n_groups": 2})]
)
def test_steps_of_a_mamba(family, own):
    torch.manual_seed(0)
    config = FAMILIES[family].config(vocab_size=8192, hidden_size=64, num_hidden_layers=2, state_size=4, **own)
    model = build_model(config).eval()
    view = for_decoding(model, fewest_parameters=0)
    assert isinstance(view.blocks["0"].mixer.in_proj, FewRowsLinear)
    assert_same_steps(view, model, even=True)
    assert_same_steps(view, model, even=False)


def rwkv(family, dtype=None, **own):
    torch.manual_seed(0)
    shape = {"vocab_size": 258, "hidden_size": 256, "num_hidden_layers": 2, "model_type": family}
    model = build_model(FAMILIES[family].config(**shape, **own)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    return model.to(dtype)


@pytest.mark.parametrize(("family", "own"), [("rwkv", {}), ("rwkv5", {"num_attention_heads": 4})])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_steps_of_an_rwkv(family, own, dtype):
    model = rwkv(family, dtype, **own)
    view = for_decoding(model, fewest_parameters=0)
    assert view is not model
    assert_same_steps(view, model if dtype is None else in_float32(model), even=False)


@pytest.mark.parametrize("family", ["rwkv6", "rwkv7"])
def test_the_low_rank_networks_of_later_rwkv_stay_as_they_are(family):
    model = rwkv(family, num_attention_heads=4)
    assert for_decoding(model, fewest_parameters=0) is model


def test_steps_of_a_gpt2():
    model = gpt2()
    view = for_decoding(model, fewest_parameters=0)
    assert isinstance(view.blocks["0"], FewRowsBlock)
    assert_same_steps(view, model, even=True)


@torch.inference_mode()
def assert_same_steps(view, plain, even, atol=2e-5):
    """Prompts, single tokens, then two tokens at once and rows exchanged."""
    torch.manual_seed(1)
    ids, more = torch.randint(0, 258, (3, 5)), torch.randint(0, 258, (3, 9))
    documents = None if even else torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 1]])
    states = [model.make_state(3, 20) for model in (view, plain)]
    found, want = (m(ids, documents=documents, state=s) for m, s in zip((view, plain), states, strict=True))
    real = slice(None) if documents is None else documents.bool()
    torch.testing.assert_close(found[real], want[real], atol=atol, rtol=1e-4)
    for start, end in [(0, 1), (1, 2), (2, 4), (4, 5)]:
        for state in states:
            state.select(torch.tensor([2, 0, 1]))
        found, want = (m(more[:, start:end], state=s) for m, s in zip((view, plain), states, strict=True))
        torch.testing.assert_close(found, want, atol=atol, rtol=1e-4)


def test_a_first_step_of_one_token():
    model = llama()
    view = for_decoding(model, fewest_parameters=0)
    with torch.inference_mode():
        found, want = (m(torch.tensor([[7]]), state=m.make_state(1, 4)) for m in (view, model))
    torch.testing.assert_close(found, want)


def test_the_model_itself_is_untouched_and_the_weights_are_shared():
    model = llama("bfloat16")
    before = {name: type(module) for name, module in model.named_modules()}
    view = for_decoding(model, fewest_parameters=0)
    assert {name: type(module) for name, module in model.named_modules()} == before
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert view.lm_head.weight is model.lm_head.weight
    assert view.embed.tokens.weight is model.embed.tokens.weight


def test_vectors_that_are_given_stay_as_they_are():
    model = llama()
    view = for_decoding(model, fewest_parameters=0)
    vectors = torch.randn(1, 1, 64)
    kept = vectors.clone()
    with torch.inference_mode():
        state = view.make_state(1, 4)
        view(torch.tensor([[7]]), state=state)
        view(vectors, state=state)
    assert torch.equal(vectors, kept)


def test_not_a_number_comes_through():
    model = llama()
    view = for_decoding(model, fewest_parameters=0)
    with torch.inference_mode():
        state = view.make_state(1, 4)
        view(torch.tensor([[7]]), state=state)
        model.blocks["0"].mlp.gate_proj.weight[3, 5] = torch.nan
        assert view(torch.tensor([[7]]), state=state).isnan().any()


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_dtypes_are_left_alone(dtype):
    model = llama().to(getattr(torch, dtype))
    assert for_decoding(model, fewest_parameters=0) is model


def test_small_models_and_observed_models_are_left_alone():
    model = llama()
    assert for_decoding(model) is model
    with observe(model, ["blocks.*"]):
        assert for_decoding(model, fewest_parameters=0) is model
    assert for_decoding(model, fewest_parameters=0) is not model


def test_a_process_that_decodes_much_uses_it_for_small_models_too(monkeypatch):
    model = llama()
    monkeypatch.setattr(view, "_loaded", False)
    assert for_decoding(model) is model
    view.load()
    assert for_decoding(model) is not model


def test_generate_takes_it_and_gives_the_same(monkeypatch):
    model = llama("bfloat16")
    prompts = ["Hello", "a longer prompt", "x"]
    options = {"temperature": 0, "max_new_tokens": 12, "logprobs": True}
    want = generate(in_float32(model), Bytes(), prompts, **options)
    made = []
    monkeypatch.setattr(view, "FEWEST_PARAMETERS", 0)
    monkeypatch.setattr(FewRowsBlock, "__init__", counted(FewRowsBlock.__init__, made))
    found = generate(model, Bytes(), prompts, **options)
    assert len(made) == 2
    assert [one.ids for one in found] == [one.ids for one in want]
    torch.testing.assert_close([one.logprobs for one in found], [one.logprobs for one in want], atol=1e-4, rtol=1e-4)


def counted(function, calls):
    def counting(*arguments):
        calls.append(arguments)
        function(*arguments)

    return counting


def test_numba_takes_the_number_of_threads_from_torch():
    import numba

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        view = for_decoding(llama(), fewest_parameters=0)
        with torch.inference_mode():
            view(torch.tensor([[7]]))
        assert (torch.get_num_threads(), numba.get_num_threads()) == (1, 1)
    finally:
        torch.set_num_threads(before)


def test_threads_may_decode_at_once():
    view, ids = for_decoding(llama(), fewest_parameters=0), torch.randint(0, 258, (1, 8))
    results = []

    @torch.inference_mode()
    def decode():
        state = view.make_state(1, 8)
        results.append(torch.cat([view(ids[:, i : i + 1], state=state) for i in range(8)]))

    threads = [threading.Thread(target=decode) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


ACTIVATIONS_KNOWN = ("relu", "relu2", "gelu", "gelu_new", "silu")


@pytest.mark.parametrize("name", ACTIVATIONS_KNOWN)
@pytest.mark.parametrize("gated", [True, False])
def test_networks_of_every_known_activation(name, gated):
    torch.manual_seed(0)
    mlp = (GatedMLP if gated else MLP)(64, 128, activation(name), bias=True)
    with torch.inference_mode():
        for rows in (1, 7):
            x = 3 * torch.randn(rows, 1, 64)
            torch.testing.assert_close(FewRowsMLP(mlp)(x), mlp(x), atol=2e-6, rtol=1e-5)
        x[0, 0, 3] = torch.nan
        assert FewRowsMLP(mlp)(x)[0].isnan().all()


def test_an_unknown_activation_is_not_taken():
    assert [kind_of(ACTIVATIONS[name]) > 0 for name in ACTIVATIONS_KNOWN] == [True] * len(ACTIVATIONS_KNOWN)
    assert [kind_of(ACTIVATIONS[name]) for name in ("mish", "tanh", "sigmoid", "linear")] == [0] * 4


@pytest.mark.parametrize("make", [RMSNorm, OffsetRMSNorm])
def test_norms(make):
    torch.manual_seed(0)
    norm = make(96)
    nn.init.normal_(norm.weight)
    with torch.inference_mode():
        for shape in ((1, 1, 96), (3, 1, 96), (MOST_ROWS + 1, 1, 96), (2, 5, 96)):
            x = 10 * torch.randn(shape)
            torch.testing.assert_close(FewRowsNorm(norm)(x), norm(x))


@pytest.mark.parametrize("make", [Experts, GatedExperts])
def test_experts_of_places_that_are_empty(make):
    """Expert 4 of 4 stands for none: a token may have two experts, one, or none at all."""
    torch.manual_seed(0)
    experts = make(4, 64, 128, bias=True)
    nn.init.normal_(experts.down_proj.bias)
    chosen = torch.tensor([[3, 0], [4, 2], [4, 4]])
    weights = torch.rand(3, 2).masked_fill(chosen == 4, 0)
    routing = Routing(chosen, weights, torch.rand(3, 4), 4, complete=False)
    x = torch.randn(3, 64)
    with torch.inference_mode():
        found = FewRowsExperts(experts)(x, routing)
        torch.testing.assert_close(found, experts(x, routing), atol=1e-6, rtol=1e-5)
    assert not found[2].any()


def test_queries_beyond_the_length_of_training_are_sharpened():
    """Qwen 1's factor begins at a length: steps before it are compiled, steps behind it are left to the model."""
    torch.manual_seed(0)
    shape = LLAMA | {"initializer_range": 0.3, "head_dim": 16, "intermediate_size": 256, "seq_length": 6}
    model = build_model(FAMILIES["qwen"].config(**shape, use_logn_attn=True, use_dynamic_ntk=False)).eval()
    view = for_decoding(model, fewest_parameters=0)
    ids = torch.randint(0, 258, (2, 12))
    with torch.inference_mode():
        states = [m.make_state(2, 12) for m in (view, model)]
        for t in range(12):
            found, want = (m(ids[:, t : t + 1], state=s) for m, s in zip((view, model), states, strict=True))
            torch.testing.assert_close(found, want, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("spare", [0, 3])
def test_a_window_that_rolls(spare):
    """Slots wrap around, rows of different lengths have their own, and what was forgotten is written over."""
    torch.manual_seed(0)
    model = build_model(FAMILIES["mistral"].config(**LLAMA | {"initializer_range": 0.3}, sliding_window=4)).eval()
    view = for_decoding(model, fewest_parameters=0)
    ids, documents = torch.randint(0, 258, (2, 30)), torch.tensor([[0, 0, 1], [1, 1, 1]])
    with torch.inference_mode():
        states = [m.make_state(2, 40, spare=spare) for m in (view, model)]
        for m, state in zip((view, model), states, strict=True):
            m(ids[:, :3], documents=documents, state=state)
        for t in range(3, 30):
            if spare and t % 9 == 0:
                for state in states:
                    state.trim(2)
            found, want = (m(ids[:, t : t + 1], state=s) for m, s in zip((view, model), states, strict=True))
            torch.testing.assert_close(found, want, atol=2e-5, rtol=1e-4)
            ours, theirs = ([layer.forgettable for layer in state.layers.values()] for state in states)
            assert ours == theirs
