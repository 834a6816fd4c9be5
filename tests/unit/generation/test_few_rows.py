"""The faster view for decoding gives what the model itself gives."""

import threading

import pytest
import torch
from torch import nn

from groundup.generation import few_rows
from groundup.generation.few_rows import MOST_ROWS, FewRowsBlock, FewRowsLinear, for_decoding
from groundup.generation.generate import generate
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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"num_key_value_heads": 2}, {"tie_word_embeddings": True}, {"head_dim": 32}, {"mlp_bias": True}],
    ids=["plain", "grouped", "tied", "wide heads", "biases"],
)
def test_steps_of_a_llama(changes, dtype):
    model = llama(dtype, **changes)
    view, plain = for_decoding(model, fewest_parameters=0), in_float32(model)
    assert isinstance(view.blocks["0"], FewRowsBlock) == ("mlp_bias" not in changes)
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
    "glm_2021": {},
    "gptj": {"rotary_dim": 8},
    "phi": {"intermediate_size": 128, "num_key_value_heads": 2},
    "opt": {"do_layer_norm_before": False, "word_embed_proj_dim": 32},
}


# Mixtures choose their weights by the data, and the first GLMs look for marks in the ids: their steps are left alone.
LEFT_ALONE = (
    *("gpt_oss", "deepseek_v2", "mixtral", "qwen2_moe", "qwen3_moe"),
    *("glm_130b", "chatglm_6b"),
)
ELSEWHERE = (*OLDER, *LEFT_ALONE, "mamba")


@pytest.mark.parametrize("family", LEFT_ALONE)
def test_steps_of_these_are_left_alone(family):
    config = FAMILIES[family].config
    shape = (
        LLAMA
        | {"model_type": family}
        | ({"num_key_value_heads": 2} if family in ("gpt_oss", "mixtral", "qwen2_moe", "qwen3_moe") else {})
    )
    model = build_model(config(**shape)).eval()
    assert for_decoding(model, fewest_parameters=0) is model


@pytest.mark.parametrize("family", [name for name in LIKE_LLAMA if name not in ELSEWHERE])  # theirs are elsewhere
def test_steps_of_every_family(family):
    shape = LLAMA | {"initializer_range": 0.2, "model_type": family}
    window = {"sliding_window": 4, "use_sliding_window": True, "max_window_layers": 1}
    window |= {"head_dim": 16} if family == "qwen" else {}
    config = FAMILIES[family].config
    torch.manual_seed(0)
    model = build_model(config(**shape | {name: v for name, v in window.items() if name in config.model_fields})).eval()
    view = for_decoding(model, fewest_parameters=0)
    assert view is not model
    assert isinstance(view.blocks["0"], FewRowsBlock) == (family == "llama")
    assert_same_steps(view, model, even=True)
    assert_same_steps(view, model, even=False)


@pytest.mark.parametrize("family", OLDER)
def test_steps_of_the_older_families(family):
    shape = {name: value for name, value in LLAMA.items() if name != "intermediate_size"}
    shape |= {"initializer_range": 0.2, "max_position_embeddings": 1024, "vocab_size": 2048}
    torch.manual_seed(0)
    model = build_model(FAMILIES[family].config(**shape | OLDER[family])).eval()
    view = for_decoding(model, fewest_parameters=0)
    assert isinstance(view.blocks["0"].attn.q_proj, FewRowsLinear)
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


def test_steps_of_a_mamba():
    torch.manual_seed(0)
    config = FAMILIES["mamba"].config(vocab_size=8192, hidden_size=64, num_hidden_layers=2, state_size=4)
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
    assert isinstance(view.blocks["0"].attn.q_proj, FewRowsLinear)
    assert_same_steps(view, model, even=True)


@torch.inference_mode()
def assert_same_steps(view, plain, even):
    """Prompts, single tokens, then two tokens at once and rows exchanged."""
    torch.manual_seed(1)
    ids, more = torch.randint(0, 258, (3, 5)), torch.randint(0, 258, (3, 9))
    documents = None if even else torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 1]])
    states = [model.make_state(3, 20) for model in (view, plain)]
    found, want = (m(ids, documents=documents, state=s) for m, s in zip((view, plain), states, strict=True))
    real = slice(None) if documents is None else documents.bool()
    torch.testing.assert_close(found[real], want[real], atol=2e-5, rtol=1e-4)
    for start, end in [(0, 1), (1, 2), (2, 4), (4, 5)]:
        for state in states:
            state.select(torch.tensor([2, 0, 1]))
        found, want = (m(more[:, start:end], state=s) for m, s in zip((view, plain), states, strict=True))
        torch.testing.assert_close(found, want, atol=2e-5, rtol=1e-4)


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


def test_generate_takes_it_and_gives_the_same(monkeypatch):
    model = llama("bfloat16")
    prompts = ["Hello", "a longer prompt", "x"]
    options = {"temperature": 0, "max_new_tokens": 12, "logprobs": True}
    want = generate(in_float32(model), Bytes(), prompts, **options)
    made = []
    monkeypatch.setattr(few_rows, "FEWEST_PARAMETERS", 0)
    monkeypatch.setattr(few_rows.FewRowsBlock, "__init__", counted(few_rows.FewRowsBlock.__init__, made))
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
