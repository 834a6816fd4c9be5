"""The contract of State: what a model remembers between calls, row by row."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from groundup.base.errors import UsageError
from groundup.models.configs.gpt2 import GPT2Config
from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model
from groundup.state import KVCache, RecurrentState, State

SHAPE = dict(
    vocab_size=48, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32,
    initializer_range=0.3,
)  # fmt: skip


def build(name="llama"):
    torch.manual_seed(0)
    configs = {
        "gpt2": GPT2Config(**SHAPE, embd_pdrop=0, attn_pdrop=0, resid_pdrop=0),
        "llama": LlamaConfig(**SHAPE, intermediate_size=40, num_key_value_heads=2),
    }
    return build_model(configs[name]).eval()


@pytest.fixture(params=["gpt2", "llama"])
def model(request):
    return build(request.param)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def ids(rows=3, length=12, seed=1):
    return torch.randint(0, 48, (rows, length), generator=torch.Generator().manual_seed(seed))


def uneven(model, lengths=(6, 3, 1), max_len=16):
    """A state whose rows hold so many tokens, and the tokens of each row."""
    x, width = ids(len(lengths), max(lengths)), max(lengths)
    documents = torch.stack([(torch.arange(width) >= width - n).long() for n in lengths])
    state = model.make_state(len(lengths), max_len)
    model(x, documents=documents, state=state)
    return state, [row[width - n :] for row, n in zip(x, lengths, strict=True)]


def assert_goes_on(model, state, rows):
    """The next tokens get the logits that they get in the whole row without a state."""
    more = ids(len(rows), 2, seed=9)
    got = model(more, state=state)
    for i, row in enumerate(rows):
        whole = torch.cat((row, more[i]))[None]
        assert_close(got[i], model(whole)[0, -2:], msg=lambda m, i=i: f"row {i}: {m}")


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=3),
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.sampled_from(["left", "right"]),
    st.sampled_from(["gpt2", "llama"]),
)
def test_any_cut_of_padded_rows_equals_each_row_alone(lengths, cuts, side, name):
    """Chunks of any size, rows of any length (none at all too), padding on either side: the logits are the row's own,
    and no row needs more slots than it has tokens."""
    with torch.no_grad():
        model, width = build(name), sum(cuts)
        lengths = [min(n, width) for n in lengths]
        x, place = ids(len(lengths), width), torch.arange(width)
        documents = torch.stack([((place >= width - n) if side == "left" else (place < n)).long() for n in lengths])
        state = model.make_state(len(lengths), max(*lengths, 1))
        parts, start = [], 0
        for size in cuts:
            part = slice(start, start + size)
            parts.append(model(x[:, part], documents=documents[:, part], state=state))
            start += size
        assert state.lengths.tolist() == lengths
        got = torch.cat(parts, 1)
        for i, n in enumerate(lengths):
            if n:
                real = documents[i].bool()
                assert_close(got[i, real], model(x[i, real][None])[0], atol=1e-4, rtol=1e-4)


@pytest.mark.row("LAY-34", reference="property: equal to the row without a cache")
def test_overflow_is_refused_and_leaves_the_state_usable(model):
    x, state = ids(), model.make_state(3, 8)
    model(x[:, :6], state=state)
    with pytest.raises(UsageError, match=r"3 tokens arrive and a row would then hold 9, .*max_len=8"):
        model(x[:, 6:9], state=state)
    assert state.lengths.tolist() == [6, 6, 6]
    assert_close(model(x[:, 6:8], state=state), model(x[:, :8])[:, 6:])  # exactly full
    with pytest.raises(UsageError, match="max_len=8"):
        model(x[:, 8:9], state=state)


def test_overflow_counts_tokens_not_columns(model):
    """Padding and rows that have left do not count."""
    state, rows = uneven(model, (6, 3, 1), max_len=8)
    state.select(torch.tensor([1, 2]))
    assert_goes_on(model, state, rows[1:])  # 5 and 3
    model(ids(2, 3), state=state)  # 8 and 6
    with pytest.raises(UsageError, match="would then hold 9"):
        model(ids(2, 1), state=state)


def test_select_reorders_drops_and_doubles_rows(model):
    state, rows = uneven(model)
    state.select(torch.tensor([2, 0, 0, 1]))  # beams: more rows than there were
    assert state.lengths.tolist() == [1, 6, 6, 3]
    assert_goes_on(model, state, [rows[2], rows[0], rows[0], rows[1]])
    state.select(torch.tensor([3]))
    assert state.lengths.tolist() == [5]
    assert all(layer.k.shape[0] == 1 for layer in state.layers.values())


def test_doubled_rows_go_separate_ways(model):
    state, rows = uneven(model)
    state.select(torch.tensor([0, 0]))
    more = torch.tensor([[1, 2], [3, 4]])
    model(more, state=state)
    assert_goes_on(model, state, [torch.cat((rows[0], more[i])) for i in range(2)])


def test_select_before_anything_is_remembered(model):
    state = model.make_state(1, 8)
    state.select(torch.tensor([0, 0]))
    assert_close(model(ids(2, 4), state=state), model(ids(2, 4)))


def test_trim_of_even_and_uneven_rows(model):
    state = model.make_state(3, 12)
    x = ids()
    model(x[:, :8], state=state)
    state.trim(3)
    assert state.lengths.tolist() == [5, 5, 5]
    assert_goes_on(model, state, list(x[:, :5]))

    state, rows = uneven(model, (6, 3, 1))
    state.trim(1)
    assert state.lengths.tolist() == [5, 2, 0]
    assert_goes_on(model, state, [row[:-1] for row in rows])


@pytest.mark.parametrize("tokens", [-1, 13])
def test_impossible_trims_are_refused(model, tokens):
    state = model.make_state(3, 16)
    model(ids(), state=state)
    with pytest.raises(UsageError, match="cannot forget"):
        state.trim(tokens)


def test_snapshot_and_restore(model):
    state, rows = uneven(model)
    moment = state.snapshot()
    model(ids(3, 4, seed=3), state=state)
    state.restore(moment)
    assert state.lengths.tolist() == [6, 3, 1]
    assert_goes_on(model, state, rows)


def test_memory_is_what_the_formula_says(model):
    state = model.make_state(3, 10)
    assert state.nbytes == 0  # allocated by the first call
    model(ids(3, 2), state=state)
    config = model.config
    kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    # layers x (k, v) x rows x heads x (max_len + 1 slot for padding) x width x 4 bytes
    assert state.nbytes == 2 * 2 * 3 * kv_heads * 11 * 8 * 4
    kept = [layer.k.data_ptr() for layer in state.layers.values()]
    model(ids(3, 8), state=state)
    assert [layer.k.data_ptr() for layer in state.layers.values()] == kept  # nothing grows


def test_recurrent_states_are_selected_restored_but_not_trimmed():
    layer = RecurrentState()
    layer.tensors = {"sum": torch.arange(6.0).reshape(3, 2)}
    state = State({"blocks.0.mix": layer}, 3, 100)
    moment = state.snapshot()
    state.select(torch.tensor([2, 2]))
    assert layer.tensors["sum"].tolist() == [[4, 5], [4, 5]]
    layer.tensors["sum"].add_(1)
    state.restore(moment)
    assert layer.tensors["sum"].tolist() == [[0, 1], [2, 3], [4, 5]]
    layer.tensors["sum"].zero_()
    state.restore(moment)  # a snapshot can be used again
    assert layer.tensors["sum"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert state.nbytes == 6 * 4
    with pytest.raises(UsageError, match="snapshot"):
        state.trim(0)
    State({"blocks.0.attn": KVCache(4)}, 1, 4).trim(0)


def test_a_state_of_one_model_is_not_stored_in_it(model):
    state = model.make_state(3, 12)
    before = model(ids())
    model(ids(), state=state)
    assert torch.equal(model(ids()), before)
    other = model.make_state(3, 12)
    assert_close(model(ids(), state=other), before)
