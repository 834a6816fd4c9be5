"""The rolling cache: memory of a window, and the same numbers as with all keys kept."""

import pytest
import torch
import transformers as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from groundup.base.errors import UsageError
from groundup.generation.few_rows import for_decoding
from groundup.generation.few_rows.block import FewRowsBlock
from groundup.generation.generate import generate, prefill
from groundup.models.configs.mistral import MistralConfig
from groundup.models.configs.parts import PartsConfig
from groundup.models.configs.phi3 import Phi3Config
from groundup.models.configs.qwen2 import Qwen2Config
from groundup.models.hub import build_model, load_model
from groundup.state import KVCache, RollingKVCache, caches, kv_cache
from standin import Bytes

WINDOW = 4
SHAPE = dict(
    vocab_size=48, hidden_size=32, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3,
)  # fmt: skip
CONFIGS = {
    "mistral": lambda: MistralConfig(**SHAPE, sliding_window=WINDOW),
    "phi3": lambda: Phi3Config.from_hf(SHAPE | dict(model_type="phi3", sliding_window=WINDOW, pad_token_id=0)),
    "qwen2": lambda: Qwen2Config(**SHAPE, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1),
}


def build(name="mistral"):
    torch.manual_seed(0)
    return build_model(CONFIGS[name]()).eval()


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def ids(rows=3, length=20, seed=1):
    return torch.randint(0, 48, (rows, length), generator=torch.Generator().manual_seed(seed))


def padded(lengths, width, side):
    """documents (B, T): so many real tokens a row, on one side."""
    place = torch.arange(width)
    return torch.stack([((place >= width - n) if side == "left" else (place < n)).long() for n in lengths])


@pytest.mark.row("LAY-26", reference="property: equal to the row without a cache")
@pytest.mark.row("LM-34", reference="property: equal to the row without a cache")
@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([1, 1, 2, 3, WINDOW, WINDOW + 1, 3 * WINDOW]), min_size=1, max_size=6),
    st.integers(1, 3),
    st.sampled_from(["mistral", "qwen2"]),
    st.randoms(use_true_random=False),
)
def test_any_cut_of_padded_rows_equals_each_row_alone(cuts, rows, name, random):
    """Chunks shorter and longer than the window; in each, every row has its own number of tokens (none at all too),
    padded on either side.
    """
    with torch.no_grad():
        model, x, start, parts = build(name), ids(rows, sum(cuts)), 0, []
        chunks = [
            padded([random.randint(0, size) for _ in range(rows)], size, random.choice(["left", "right"]))
            for size in cuts
        ]
        documents = torch.cat(chunks, 1)
        lengths = documents.sum(1).tolist()
        state = model.make_state(rows, max(*lengths, 1))
        for size in cuts:
            part = slice(start, start + size)
            parts.append(model(x[:, part], documents=documents[:, part], state=state))
            start += size
        got = torch.cat(parts, 1)
        assert state.lengths.tolist() == lengths
        assert got.isfinite().all()  # padding too: what is not a number would spread through masked sums
        for i, n in enumerate(lengths):
            if n:
                real = documents[i].bool()
                assert_close(got[i, real], model(x[i, real][None])[0], atol=1e-4, rtol=1e-4)


@pytest.mark.row("LAY-26", reference="transformers")
@pytest.mark.row("LM-34", reference="transformers")
@pytest.mark.parametrize("chunk", [1, 3, WINDOW, 7, 20])
@pytest.mark.parametrize("name", ["mistral", "phi3", "qwen2"])
def test_prefill_in_chunks_then_steps_equal_transformers(name, chunk, tmp_path):
    ours = build(name)
    ours.save_pretrained(tmp_path)
    theirs = tf.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    x, state = ids(2, 24), ours.make_state(2, 24)
    parts = [ours(x[:, a : min(a + chunk, 20)], state=state) for a in range(0, 20, chunk)]
    parts += [ours(x[:, t : t + 1], state=state) for t in range(20, 24)]
    # float32 sums over other numbers of keys round otherwise
    assert_close(torch.cat(parts, 1), theirs(x).logits, atol=2e-5, rtol=1e-5)


@pytest.mark.row("LAY-26", reference="hand calculation")
def test_memory_is_the_window_whatever_the_length():
    model = build("qwen2")
    state = model.make_state(2, 60)
    model(ids(2, 9), state=state)
    caches = [state.layers[f"blocks.{i}.attn"] for i in range(3)]
    assert [type(cache) for cache in caches] == [KVCache, RollingKVCache, RollingKVCache]
    # (k, v) x rows x heads x places (one takes the padding) x width x 4 bytes
    assert [cache.nbytes for cache in caches] == [2 * 2 * 2 * n * 8 * 4 for n in (61, WINDOW + 1, WINDOW + 1)]
    kept = [cache.k.data_ptr() for cache in caches]
    for _ in range(20):
        model(ids(2, 2), state=state)
    assert [cache.k.data_ptr() for cache in caches] == kept
    assert type(kv_cache(8, None)) is type(kv_cache(8, 8)) is KVCache  # nothing ever leaves such a window


def test_layers_of_one_rule_may_remember_in_either_way():
    """The mask is that of the keys a layer's own memory gives: here the first layer keeps all of them."""
    model, x = build(), ids(2, 14)
    state = model.make_state(2, 14)
    state.layers["blocks.0.attn"] = KVCache(14)
    parts = [model(part, state=state) for part in x.split([6, 3, 1, 1, 3], 1)]
    assert_close(torch.cat(parts, 1), model(x), atol=2e-5, rtol=1e-5)


@pytest.mark.row("LAY-26", reference="hand calculation")
def test_a_slot_lies_at_its_remainder_by_the_size():
    """Keys that are their slots' numbers: after 6 tokens and a window of 4 the places hold 4, 5, 2, 3."""
    model = build()
    state, cache = model.make_state(1, 20), RollingKVCache(4, 20)

    def give(tokens):
        placement = state.place(tokens, None)
        new = torch.arange(placement.length - tokens, placement.length).float()[None, None, :, None]
        keys, _ = cache.update(new, new, placement)
        state.advance(placement, tokens)
        if not placement.fresh:
            assert keys.flatten().tolist() == cache.keys(placement).flatten().tolist()
        return keys.flatten().tolist(), cache.k.flatten()[:4].tolist()

    assert give(6) == ([0, 1, 2, 3, 4, 5], [4, 5, 2, 3])
    assert give(1) == ([4, 5, 6, 3], [4, 5, 6, 3])
    assert give(3) == ([4, 5, 6, 7, 8, 9], [8, 9, 6, 7])  # three before the chunk, and the chunk
    assert give(9)[1] == [16, 17, 18, 15]


def test_no_place_is_written_twice_in_a_call(monkeypatch):
    """Which of two writes to a place stays is open on a GPU; the place of padding alone may get several."""
    written = []
    monkeypatch.setattr(caches, "put", lambda values, new, places: written.append(places))
    state, cache, x = build().make_state(2, 40), RollingKVCache(4, 40), torch.zeros(2, 1, 9, 1)
    for documents in (padded((9, 5), 9, "left"), padded((7, 9), 9, "right"), None):
        placement = state.place(9, documents)
        cache.update(x, x, placement)
        state.advance(placement, 9)
    assert len(written) == 3 * 2 + 2 * 2  # keys and values of three calls, and of two chunks joined to what was there
    for places in written:
        for row in places.tolist():
            assert all(row.count(place) == 1 for place in row if place < (4 if max(row) <= 4 else 12))


@pytest.mark.row("LAY-26", reference="transformers")
@pytest.mark.row("LM-34", reference="transformers")
def test_generation_equals_transformers(tmp_path):
    """Prompts shorter and longer than the window in one batch, and texts that leave it far behind."""
    torch.manual_seed(0)
    config = tf.MistralConfig(**SHAPE | {"vocab_size": 257, "eos_token_id": None}, sliding_window=WINDOW)
    theirs = tf.MistralForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    prompts = [list(range(5, 5 + n)) for n in (2, 3, 9, 14)]
    found = generate(ours, Bytes(), prompts, temperature=0, max_new_tokens=20, ignore_eos=True)
    for prompt, completion in zip(prompts, found, strict=True):
        expected = theirs.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False, eos_token_id=-1)
        assert completion.ids == expected[0, len(prompt) :].tolist()


@pytest.mark.parametrize("positions", ["alibi", "kerple_log", "t5", "shaw", "learned"])
def test_what_positions_add_to_the_scores_follows_the_slots(positions):
    """A rolling cache gives keys in another order than their slots: biases by distance go along."""
    torch.manual_seed(0)
    shape = {name: SHAPE[name] for name in SHAPE if name != "intermediate_size"}
    model = build_model(PartsConfig(**shape, positions=positions, sliding_window=WINDOW)).eval()
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    x, documents, parts = ids(2, 18), padded((18, 11), 18, "left"), []
    state = model.make_state(2, 18)
    assert type(state.layers["blocks.0.attn"]) is RollingKVCache
    for part in (slice(0, 3), slice(3, 10), *(slice(t, t + 1) for t in range(10, 18))):
        parts.append(model(x[:, part], documents=documents[:, part], state=state))
    for row, n in enumerate((18, 11)):
        whole = model(x[row : row + 1, -n:])[0]
        assert_close(torch.cat(parts, 1)[row, -n:], whole, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_compiled_decoding_with_and_without_a_window():
    """The compiled step reads a ring from the first slot of the window on."""
    pytest.importorskip("numba")
    torch.manual_seed(0)
    shape = SHAPE | {"vocab_size": 257, "hidden_size": 64, "intermediate_size": 64}
    for window in (WINDOW, None):
        model = build_model(MistralConfig(**shape, sliding_window=window)).eval()
        view, x = for_decoding(model, fewest_parameters=0), ids(2, 12)
        assert all(isinstance(block, FewRowsBlock) for block in view.blocks.values())
        state = view.make_state(2, 12)
        got = torch.cat([view(x[:, t : t + 1], state=state) for t in range(12)], 1)
        assert_close(got, model(x), atol=2e-4, rtol=1e-4)  # other order of sums, values up to 20


def test_beams_take_their_rows_along():
    """Beam search by hand: two beams, each step keeps the better two of all continuations."""
    model = build()
    prompt = ids(1, 7)[0].tolist()
    state = model.make_state(1, 24)
    logp = prefill(model, [prompt], state, torch.device("cpu")).log_softmax(-1)
    score, token = logp.flatten().topk(2)
    state.select(torch.zeros(2, dtype=torch.int64))
    beams = [[*prompt, int(t)] for t in token]
    for _ in range(12):
        logp = model(torch.tensor([[beam[-1]] for beam in beams]), state=state)[:, -1].log_softmax(-1)
        whole = model(torch.tensor(beams))[:, -1].log_softmax(-1)
        assert_close(logp, whole, atol=2e-5, rtol=1e-5)
        score, best = (score[:, None] + logp).flatten().topk(2)
        rows = best // logp.shape[1]
        state.select(rows)
        beams = [[*beams[int(r)], int(t)] for r, t in zip(rows, best % logp.shape[1], strict=True)]


def assert_goes_on(model, state, rows, tokens=2):
    more = ids(len(rows), tokens, seed=9)
    got = model(more, state=state)
    for i, row in enumerate(rows):
        whole = torch.cat((row, more[i]))[None]
        assert_close(got[i], model(whole)[0, -tokens:], atol=2e-5, rtol=1e-5, msg=lambda m, i=i: f"row {i}: {m}")


@pytest.mark.parametrize("tokens", [1, 3])
def test_select_and_snapshot_of_rows_of_other_lengths(tokens):
    model, lengths = build(), (15, 6, 2)
    x = ids(3, 15)
    state = model.make_state(3, 30)
    model(x, documents=padded(lengths, 15, "left"), state=state)
    rows = [row[15 - n :] for row, n in zip(x, lengths, strict=True)]
    moment = state.snapshot()
    model(ids(3, 9, seed=4), state=state)
    state.restore(moment)
    model(ids(3, 1, seed=5), state=state)
    state.restore(moment)  # a snapshot can be used again
    state.select(torch.tensor([2, 0, 0, 1]))
    assert_goes_on(model, state, [rows[2], rows[0], rows[0], rows[1]], tokens)


def test_a_snapshot_before_anything():
    model = build()
    state = model.make_state(1, 30)
    moment = state.snapshot()
    model(ids(1, 9), state=state)
    state.restore(moment)
    assert_goes_on(model, state, [ids(1, 0)[0]])


@pytest.mark.parametrize("after", [1, 2, 5])
def test_trim_within_what_is_kept(after):
    model, x = build(), ids()
    state = model.make_state(3, 30)
    model(x[:, :WINDOW], state=state)
    state.trim(2)  # nothing has left the window yet
    assert_goes_on(model, state, list(x[:, : WINDOW - 2]), after)

    state = model.make_state(3, 30)
    model(x[:, :11], state=state)
    state.trim(1)  # the next token does not see the oldest
    assert_goes_on(model, state, list(x[:, :10]), after)

    state = model.make_state(3, 30, spare=3)
    model(x[:, :7], state=state)
    model(x[:, 7:11], state=state)
    state.trim(4)
    assert_goes_on(model, state, list(x[:, :7]), after)


def test_trim_beyond_what_is_kept_is_refused_and_changes_nothing():
    model, x = build(), ids()
    state = model.make_state(3, 30, spare=1)
    model(x[:, :11], state=state)
    with pytest.raises(UsageError, match=r"cannot forget 3 tokens: .* can forget 2 now.*spare=3"):
        state.trim(3)
    state.trim(1)
    with pytest.raises(UsageError, match="can forget 1 now"):
        state.trim(2)
    assert state.lengths.tolist() == [10, 10, 10]
    # rows that get no token stay behind their longest: what they lost is not forgotten
    model(x[:, 10:11], documents=torch.tensor([[1], [0], [1]]), state=state)
    with pytest.raises(UsageError, match="can forget 1 now"):
        state.trim(2)
    state.trim(1)
    assert_goes_on(model, state, [x[0, :10], x[1, :9], x[2, :10]])
    state.trim(int(state.lengths.max()))  # everything
    assert_goes_on(model, state, list(x[:, :0]))


def test_trims_add_up_until_tokens_come_again():
    model, x = build(), ids()
    state = model.make_state(3, 40, spare=4)
    model(x[:, :12], state=state)
    state.trim(3)
    with pytest.raises(UsageError, match="can forget 2 now"):
        state.trim(3)
    model(x[:, 9:13], state=state)
    state.trim(5)
    assert_goes_on(model, state, list(x[:, :8]))
