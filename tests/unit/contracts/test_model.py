"""The contract of a model: the same forward signature for every family, and what may be done to a built one."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from groundup.base.errors import UsageError
from groundup.models.configs.gpt2 import GPT2Config
from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model, load_model

SHAPE = dict(
    vocab_size=48, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, max_position_embeddings=32,
    initializer_range=0.2,
)  # fmt: skip
CONFIGS = {
    "gpt2": GPT2Config(**SHAPE, embd_pdrop=0, attn_pdrop=0, resid_pdrop=0),
    "llama": LlamaConfig(**SHAPE, intermediate_size=40, num_key_value_heads=2),
}


def build(name):
    torch.manual_seed(0)
    model = build_model(CONFIGS[name]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(params=CONFIGS)
def model(request):
    return build(request.param)


def ids(rows=2, length=12, seed=1):
    return torch.randint(0, 48, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def test_vectors_take_the_place_of_ids(model):
    """The token vectors themselves give the logits of their ids; positions are still added by the model."""
    vectors = model.embed.tokens(ids())
    assert_close(model(vectors), model(ids()))
    prompt = torch.cat((torch.randn(2, 3, 32), vectors), 1)  # a soft prompt of three vectors
    state = model.make_state(2, 15)
    parts = torch.cat((model(prompt[:, :3], state=state), model(prompt[:, 3:], state=state)), 1)
    assert_close(parts, model(prompt))
    assert not torch.allclose(model(prompt)[:, 3:], model(ids()))


def test_given_positions_are_used(model):
    x = ids()
    assert torch.equal(model(x, positions=torch.arange(12).expand(2, -1)), model(x))
    shifted = model(x, positions=torch.arange(7, 19).expand(2, -1))
    if model.config.model_type == "llama":  # rotary positions count only by their distance
        assert_close(shifted, model(x), atol=1e-4, rtol=1e-4)
    else:
        assert not torch.allclose(shifted, model(x))
    doubled = model(x, positions=2 * torch.arange(12).expand(2, -1))
    assert not torch.allclose(doubled, model(x), atol=1e-3)


def test_given_positions_go_with_a_state(model):
    x, positions, state = ids(), (2 * torch.arange(12)).expand(2, -1), model.make_state(2, 12)
    parts = [model(x[:, part], positions=positions[:, part], state=state) for part in (slice(0, 5), slice(5, 12))]
    assert_close(torch.cat(parts, 1), model(x, positions=positions))


@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_padding_on_either_side_changes_nothing(model, side):
    left, right = {"left": (5, 0), "right": (0, 5), "both": (3, 2)}[side]
    x = ids(rows=1, length=7)
    padded = F.pad(x, (left, right), value=9)
    documents = F.pad(torch.ones_like(x), (left, right))
    expected = model(x)
    assert_close(model(padded, documents=documents)[:, left : left + 7], expected)
    state = model.make_state(1, 8)  # padding takes no slot: 12 columns enter a state for 8 tokens
    assert_close(model(padded, documents=documents, state=state)[:, left : left + 7], expected)
    assert state.lengths.tolist() == [7]
    after = model(torch.tensor([[3]]), state=state)
    assert_close(after[:, -1], model(torch.cat((x, torch.tensor([[3]])), 1))[:, -1])


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 3), st.sampled_from(["gpt2", "llama"]))
def test_any_packing_equals_each_document_alone(lengths, padding, name):
    with torch.no_grad():
        model, total = build(name), sum(lengths) + padding
        x = ids(1, total)
        numbers = [n for number, length in enumerate(lengths, 1) for n in [number] * length] + [0] * padding
        packed, start = model(x, documents=torch.tensor([numbers])), 0
        for length in lengths:
            alone = model(x[:, start : start + length])
            assert_close(packed[:, start : start + length], alone, atol=1e-4, rtol=1e-4)
            start += length


def test_head_runs_inside_and_its_result_is_returned_as_it_is(model):
    x = ids()
    seen = {}

    def head(hidden, lm_head):
        seen["hidden"], seen["module"] = hidden, lm_head
        return {"any": "thing", "last": lm_head(hidden[:, -1])}

    result = model(x, head=head)
    assert result["any"] == "thing"
    assert seen["module"] is model.lm_head
    assert seen["hidden"].shape == (2, 12, 32)
    assert_close(result["last"], model(x)[:, -1])


def test_two_halves_chained_equal_the_whole(model):
    """A pipeline stage is a model with parts removed; each keeps the state of its own blocks."""
    first, second = copy.deepcopy(model), copy.deepcopy(model)
    first.norm = first.lm_head = None
    second.embed = None
    for name in ("2", "3"):
        del first.blocks[name]
    for name in ("0", "1"):
        del second.blocks[name]
    x, documents = ids(), torch.tensor([[1] * 12, [0] * 4 + [1] * 8])
    assert_close(second(first(x)), model(x))
    assert_close(second(first(x, documents=documents), documents=documents), model(x, documents=documents))
    assert set(first.state_dict()) | set(second.state_dict()) == set(model.state_dict())

    states = first.make_state(2, 12), second.make_state(2, 12)
    assert set(states[1].layers) == {"blocks.2.attn", "blocks.3.attn"}
    parts = []
    for part in (slice(0, 8), slice(8, 12)):
        hidden = first(x[:, part], state=states[0])
        parts.append(second(hidden, state=states[1]))
    assert_close(torch.cat(parts, 1), model(x))


def test_gradients_through_two_halves_are_those_of_the_whole(model):
    with torch.enable_grad():
        first, second = copy.deepcopy(model), copy.deepcopy(model)
        first.norm = first.lm_head = second.embed = None
        first.blocks, second.blocks = (
            torch.nn.ModuleDict({i: part.blocks[i] for i in kept})
            for part, kept in ((first, ("0", "1")), (second, ("2", "3")))
        )
        second(first(ids())).square().sum().backward()
        model(ids()).square().sum().backward()
    for part in (first, second):
        for name, parameter in part.named_parameters():
            whole = model.get_parameter(name)
            if model.config.tie_word_embeddings and name in ("embed.tokens.weight", "lm_head.weight"):
                continue  # a tied matrix has a gradient in both halves; their sum is tested below
            assert_close(parameter.grad, whole.grad, msg=lambda m, name=name: f"{name}: {m}")
    if model.config.tie_word_embeddings:
        both = first.embed.tokens.weight.grad + second.lm_head.weight.grad
        assert_close(both, model.embed.tokens.weight.grad)


def test_a_copy_is_independent_and_keeps_its_ties(model):
    reference, x = copy.deepcopy(model), ids()
    before = model(x)
    assert torch.equal(reference(x), before)
    for parameter in model.parameters():
        parameter.add_(1.0)
    assert torch.equal(reference(x), before)
    tied = reference.lm_head.weight is reference.embed.tokens.weight
    assert tied == model.config.tie_word_embeddings


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_gives_equal_results(model, backend):
    torch.compiler.reset()
    compiled, x = torch.compile(model, backend=backend), ids()
    documents = torch.tensor([[1] * 12, [1] * 5 + [2] * 7])
    assert_close(compiled(x), model(x))
    assert_close(compiled(x, documents=documents), model(x, documents=documents))
    state = model.make_state(2, 12)
    parts = [compiled(x[:, :6], state=state), compiled(x[:, 6:7], state=state), compiled(x[:, 7:], state=state)]
    assert_close(torch.cat(parts, 1), model(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_run_and_are_near(model, dtype):
    expected, x = model(ids()), ids()
    other = copy.deepcopy(model).to(dtype)
    out, state = other(x), other.make_state(2, 12)
    assert out.dtype == dtype
    assert other.dtype == dtype
    assert (out.double() - expected.double()).abs().mean() / expected.abs().mean() < 0.03
    steps = torch.cat((other(x[:, :9], state=state), other(x[:, 9:], state=state)), 1)
    assert (steps.double() - expected.double()).abs().mean() / expected.abs().mean() < 0.03
    assert state.nbytes == 4 * 2 * 2 * 13 * other.blocks["0"].attn.k_proj.out_features * dtype.itemsize


def test_nothing_of_a_loaded_model_stays_on_the_meta_device(model, tmp_path):
    """A model is built without memory, then filled: what no checkpoint holds must not be lost by that."""
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    tensors = [*loaded.named_parameters(), *loaded.named_buffers()]
    assert not [name for name, tensor in tensors if tensor.is_meta]
    assert {name for name, _ in tensors} == {name for name, _ in [*model.named_parameters(), *model.named_buffers()]}
    assert torch.equal(loaded(ids()), model(ids()))
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_the_model_trains_after_loading(model, tmp_path):
    model.save_pretrained(tmp_path)
    with torch.enable_grad():
        loaded = load_model(tmp_path).train()
        F.cross_entropy(loaded(ids())[:, :-1].flatten(0, 1), ids()[:, 1:].flatten()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in loaded.parameters())


def test_dtype_and_device_of_loading(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert {p.dtype for p in load_model(tmp_path, dtype="bf16").parameters()} == {torch.bfloat16}
    assert load_model(tmp_path, device="cpu").device == torch.device("cpu")
    assert build_model(model.config, dtype="bf16").dtype == torch.bfloat16


def test_other_rows_than_the_state_has_are_refused(model):
    state = model.make_state(2, 8)
    with pytest.raises(UsageError, match="3 rows arrive, but the state remembers 2"):
        model(ids(rows=3, length=4), state=state)
    assert state.lengths.tolist() == [0, 0]


def test_more_tokens_than_learned_positions_are_refused():
    with pytest.raises(UsageError, match="40 tokens in a row, but this model has learned 32 positions"):
        build("gpt2")(ids(length=40))


@pytest.mark.parametrize("wrong", [
    (GPT2Config, {"num_attention_heads": 5}, "multiple of num_attention_heads"),
    (LlamaConfig, {"num_attention_heads": 5}, "multiple of num_attention_heads"),
    (LlamaConfig, {"num_key_value_heads": 3}, "multiple of num_key_value_heads"),
    (LlamaConfig, {"head_dim": 7}, "must be even"),
    (LlamaConfig, {"hidden_sise": 7}, "Did you mean `hidden_size`"),
])  # fmt: skip
def test_impossible_shapes_are_refused(wrong):
    cls, change, message = wrong
    with pytest.raises(UsageError, match=message):
        cls.parse({**SHAPE, **change})
