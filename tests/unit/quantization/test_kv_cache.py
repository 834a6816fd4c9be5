"""Keys and values in fewer bits: close by their step, really smaller, and a state like any other."""

import pytest
import torch
from torch.testing import assert_close

from families import CASES
from families.tiny import ids, make_ours
from groundup.base.errors import UsageError
from groundup.generation.few_rows import for_decoding
from groundup.generation.generate import generate
from groundup.models.configs.llama import LlamaConfig
from groundup.models.configs.mistral import MistralConfig
from groundup.models.configs.rnn import RNNConfig
from groundup.models.hub import build_model, load_model
from groundup.quantization.kv_cache import _KINDS, decode, encode, quantize_cache
from groundup.state import KVCache, State
from groundup.tokenizers.hub import load_tokenizer
from standin import Bytes

ROW = pytest.mark.row("QNT-10", reference="the same state in full precision")
SHAPE = dict(
    vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.2,
)  # fmt: skip
FORMS = [(8, "token"), (4, "token"), (8, "channel"), (4, "channel")]


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def llama(**changes):
    torch.manual_seed(0)
    return build_model(LlamaConfig(**SHAPE | changes)).eval()


def with_a_window():
    torch.manual_seed(0)
    return build_model(MistralConfig(**SHAPE, sliding_window=8)).eval()


def steps(model, x, state, documents=None, chunk=1):
    """Logits (B, T, V), so many tokens at a time."""
    parts = [slice(i, i + chunk) for i in range(0, x.shape[1], chunk)]
    return torch.cat(
        [model(x[:, p], state=state, documents=None if documents is None else documents[:, p]) for p in parts], 1
    )


@ROW
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dim", [1, 7, 16])
def test_a_number_is_off_by_half_a_step(bits, dim):
    """|x - x'| <= (max - min) / (2^bits - 1) / 2; the ends and vectors of one value come back as they were."""
    x = torch.randn(2, 3, 5, dim, generator=torch.Generator().manual_seed(0)) * 3 + 1
    x[0, 0, 0] = -2.5
    stored = encode(x, bits)
    back = decode(stored, dim, bits, x.dtype)
    step = (x.amax(-1, keepdim=True) - x.amin(-1, keepdim=True)) / (2**bits - 1)
    assert ((x - back).abs() <= step / 2 + 1e-6).all()
    assert_close(back.amin(-1), x.amin(-1), rtol=0, atol=0)
    assert_close(back.amax(-1), x.amax(-1))
    assert stored.shape[-1] == -(-dim * bits // 8) + 8  # and two numbers of 4 bytes
    assert decode(torch.zeros_like(stored), dim, bits, x.dtype).eq(0).all()  # as caches begin


@ROW
@pytest.mark.parametrize(("bits", "keys"), FORMS)
def test_bytes(bits, keys):
    """d bits / 8 and two numbers a vector; per channel two a channel of 32 tokens, and 32 tokens as they are."""
    model, batch, max_len = llama(head_dim=64), 3, 63
    plain, small = model.make_state(batch, max_len), quantize_cache(model.make_state(batch, max_len), bits, keys)
    for state in (plain, small):
        model(ids(batch, 5), state=state)
    vectors = 2 * batch * 2  # layers, rows, heads
    token = vectors * (max_len + 1) * (64 * bits // 8 + 8)
    channel = vectors * (3 * 64 * (32 * bits // 8 + 8) + 32 * 64 * 4) + 2 * batch * 8
    assert plain.nbytes == 2 * vectors * (max_len + 1) * 64 * 4
    assert small.nbytes == (2 * token if keys == "token" else token + channel)
    assert model(ids(batch, 5), state=small).isfinite().all()


@ROW
@pytest.mark.parametrize("bits", [4, 8])
def test_attention_is_close_by_a_bound_that_follows_from_the_step(bits):
    """|s - s'| <= |q|_1 step_k / 2 / sqrt(d) =: e, so weights change by e^(2e) at most, and
    |y - y'| <= step_v / 2 + (e^(2e) - 1) max |v|.
    """
    g = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, 4, n, 16, generator=g) for n in (1, 40, 40))
    plain, small = (State({"a": KVCache(41)}, 2, 41) for _ in range(2))
    quantize_cache(small, bits)
    for state in (plain, small):
        for part in (slice(0, 39), slice(39, 40)):
            placement = state.place(part.stop - part.start, None)
            got = state.layers["a"].update(k[:, :, part], v[:, :, part], placement)
            state.advance(placement, part.stop - part.start)
        state.y = torch.nn.functional.scaled_dot_product_attention(q, *got)
    step_k, step_v = (((t.amax(-1) - t.amin(-1)) / (2**bits - 1)).amax(-1)[..., None, None] for t in (k, v))
    e = q.abs().sum(-1, keepdim=True) * step_k / 2 / 16**0.5
    bound = step_v / 2 + ((2 * e).exp() - 1) * v.abs().amax((-1, -2), keepdim=True)
    off = (small.y - plain.y).abs()
    assert (off <= bound).all()
    assert off.max() > 0


@ROW
@pytest.mark.parametrize("make", [llama, with_a_window])
@pytest.mark.parametrize("keys", ["token", "channel"])
def test_steps_are_one_pass_up_to_the_step(make, keys):
    """Left padding too. The error of the logits shrinks as the step does: 17 times from 4 bits to 8."""
    model, x = make(), ids(2, 40)
    documents = torch.ones_like(x)
    documents[1, :9] = 0
    whole, off = model(x, documents=documents), {}
    for bits in (4, 8):
        state = quantize_cache(model.make_state(2, 40), bits, keys)
        got = [
            steps(model, x[:, p], state, documents[:, p], chunk) for p, chunk in ((slice(21), 7), (slice(21, 40), 1))
        ]
        got = torch.cat(got, dim=1)
        off[bits] = (got - whole)[documents != 0].pow(2).mean().sqrt().item()
    size = whole.pow(2).mean().sqrt().item()
    assert 0 < off[8] < 0.015 * size
    assert 17 / 2 < off[4] / off[8] < 17 * 2


@ROW
@pytest.mark.parametrize(("bits", "keys"), FORMS)
@pytest.mark.parametrize(("make", "length"), [(llama, 24), (llama, 44), (with_a_window, 24)])
def test_select_snapshot_restore_trim(make, length, bits, keys):
    model, x, more = make(), ids(3, length), ids(3, 16, seed=5)
    state = quantize_cache(model.make_state(3, length + 16), bits, keys)
    steps(model, x, state, chunk=8)
    kept = state.snapshot()
    first = steps(model, more, state)
    state.restore(kept)
    assert_close(steps(model, more, state), first, rtol=0, atol=0)  # the same numbers again

    rows = torch.tensor([2, 0, 0])
    state.restore(kept)
    state.select(rows)
    assert_close(steps(model, more[rows], state), first[rows])

    if make is llama:  # a window forgets what it has given away
        state = quantize_cache(model.make_state(3, length + 16), bits, keys)
        steps(model, x, state, chunk=8)
        steps(model, more[:, :4].flip(0), state)
        state.trim(4)
        assert_close(steps(model, more, state), first, rtol=0, atol=0)


@ROW
def test_a_finished_group_that_is_forgotten_in_part():
    """Its keys are rounded once more when it is finished again: each time by half a step of that time's range."""
    k, other = (torch.randn(2, 2, n, 6, generator=torch.Generator().manual_seed(n)) for n in (40, 12))
    state = quantize_cache(State({"a": KVCache(64)}, 2, 64), 4, keys="channel")
    for part in (k, k[:, :, :1], None, other, other[:, :, :1]):
        if part is None:
            state.trim(21)  # 20 are left, and 12 make the first group full again
            continue
        placement = state.place(part.shape[2], None)
        got, _ = state.layers["a"].update(part, part, placement)
        state.advance(placement, part.shape[2])
    want = torch.cat((k[:, :, :20], other, other[:, :, :1]), 2)
    step_before = (k[:, :, :32].amax(2) - k[:, :, :32].amin(2)) / 15
    again = got[:, :, :32]
    step = (again.amax(2) - again.amin(2)) / 15
    off = (got - want).abs()
    assert (off[:, :, :20] <= (step + step_before)[:, :, None] / 2 + 1e-6).all()
    assert (off[:, :, 20:32] <= step[:, :, None] / 2 + 1e-6).all()
    assert off[:, :, 32:].eq(0).all()  # unfinished: as they are


def families():
    """Every case; what a family remembers decides whether it fits."""
    return sorted(CASES)


@ROW
@pytest.mark.parametrize("name", families())
def test_every_family(name, tmp_path):
    """A family with attention decodes with 8 bits; one without is refused by name."""
    model = make_ours(name, tmp_path)
    if not hasattr(model, "make_state"):
        return
    x = ids(2, 9)
    state, plain = model.make_state(2, 12), model.make_state(2, 12)
    if not any(type(layer) in _KINDS for layer in state.layers.values()):
        with pytest.raises(UsageError, match="keeps keys and values"):
            quantize_cache(state)
        return
    quantize_cache(state)
    for each in (state, plain):
        model(x[:, :8], state=each)
    got, want = (model(x[:, 8:], state=each) for each in (state, plain))
    assert (got - want).abs().max() <= 0.05 * want.abs().max()
    assert state.nbytes < plain.nbytes


@ROW
def test_tiny_says_the_same():
    """8 bits leave the greedy text of the built-in model as it is; the compiled decoding stands aside by itself."""
    model, tokenizer = load_model("tiny", dtype="float32"), load_tokenizer("tiny")
    prompts = ["Once upon a time", "One day, Lily and Ben", "She was very sad because", "In the morning"]
    settings = {"temperature": 0, "max_new_tokens": 32}
    assert [c.text for c in generate(model, tokenizer, prompts, **settings, cache_bits=8)] == [
        c.text for c in generate(model, tokenizer, prompts, **settings)
    ]
    view = for_decoding(model)
    x = torch.tensor([tokenizer.encode("Once upon a time there was a cat")])
    assert_close(
        steps(view, x, quantize_cache(view.make_state(1, 20))),
        steps(model, x, quantize_cache(model.make_state(1, 20))),
        rtol=1e-4, atol=2e-2,  # float32 sums in another order: a number may round to the next step
    )  # fmt: skip


@ROW
def test_refusals():
    model = llama()
    state = model.make_state(1, 8)
    for wrong in ({"bits": 2}, {"keys": "head"}):
        with pytest.raises(UsageError, match="not"):
            quantize_cache(state, **wrong)
    model(ids(1, 3), state=state)
    with pytest.raises(UsageError, match="remembers tokens already"):
        quantize_cache(state)
    torch.manual_seed(0)
    recurrent = build_model(RNNConfig(vocab_size=258, hidden_size=16, num_hidden_layers=1))
    with pytest.raises(UsageError, match=r"cache_bits=8 does not fit rnn.*RecurrentState"):
        generate(recurrent, Bytes(), ["a"], cache_bits=8, max_new_tokens=2)
    with pytest.raises(UsageError, match="cache_bits"):
        generate(llama(vocab_size=258), Bytes(), ["a"], cache_bits=3)


def test_half_precision_keeps_its_dtype():
    x = torch.randn(1, 1, 4, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    for bits in (4, 8):
        back = decode(encode(x, bits), 16, bits, x.dtype)
        step = (x.float().amax(-1, keepdim=True) - x.float().amin(-1, keepdim=True)) / (2**bits - 1)
        assert back.dtype == torch.bfloat16
        # half a step, and what bfloat16 makes of the step (2^-9 of each) and of the result
        assert ((back - x).float().abs() <= step + 2**-8 * x.abs().float() + 2**-8 * step * 2**bits).all()
