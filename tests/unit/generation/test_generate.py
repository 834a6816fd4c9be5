import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.base.errors import NotFiniteError, UsageError
from groundup.generation import generate as module
from groundup.generation.config import SamplingConfig
from groundup.generation.generate import generate, stream
from groundup.generation.text import TextStream
from standin import Bytes, Decay

PROMPTS = ["The cat", "A much longer prompt than that", "x", "The cat", "Où ça?"]
SETTINGS = [
    {"temperature": 0},
    {"temperature": 0.8},
    {"top_k": 5},
    {"top_p": 0.7},
    {"min_p": 0.1, "temperature": 1.5},
    {"repetition_penalty": 1.3, "frequency_penalty": 0.5, "presence_penalty": 0.2, "top_k": 20},
]


@pytest.fixture(scope="module")
def model():
    return Decay()


@pytest.mark.row("INF-09", reference="property: batched equals one by one")
@pytest.mark.parametrize("options", SETTINGS)
def test_what_is_in_the_batch_changes_nothing(model, options):
    together = generate(model, Bytes(), PROMPTS, max_new_tokens=20, **options)
    split = generate(model, Bytes(), PROMPTS, max_new_tokens=20, batch_size=2, **options)
    alone = [generate(model, Bytes(), prompt, max_new_tokens=20, **options)[0] for prompt in PROMPTS[:3]]
    assert together == split
    assert together[:3] == alone
    assert (together[0].ids == together[3].ids) == (options.get("temperature") == 0)  # two samples of one prompt


def test_seeds(model):
    texts = {seed: generate(model, Bytes(), "The", seed=seed, max_new_tokens=12)[0].ids for seed in (1, 2, 1)}
    assert generate(model, Bytes(), "The", seed=1, max_new_tokens=12)[0].ids == texts[1] != texts[2]
    assert (
        generate(model, Bytes(), "The", seed=None, max_new_tokens=12)[0].ids
        != generate(model, Bytes(), "The", seed=None, max_new_tokens=12)[0].ids
    )


def test_rows_that_end_leave_the_batch():
    model = Decay()
    results = generate(model, Bytes(), PROMPTS, samples=2, max_new_tokens=40, stop=["e", "a"], temperature=1.0)
    widths = [shape[0] for shape in model.calls]
    assert widths == sorted(widths, reverse=True)
    # a row is computed once for its prompt and once for each new token but the last
    assert sum(widths) == len(results) + sum(len(r.ids) - 1 for r in results)


def test_long_prompts_are_read_in_chunks(model, monkeypatch):
    expected = generate(model, Bytes(), ["a" * 50 + "b", "hello"], temperature=0, max_new_tokens=8)
    monkeypatch.setattr(module, "PREFILL_CHUNK", 7)
    assert generate(model, Bytes(), ["a" * 50 + "b", "hello"], temperature=0, max_new_tokens=8) == expected


@pytest.mark.row("INF-06", reference="property")
def test_stop_texts_end_the_text_and_are_not_in_it(model):
    free = generate(model, Bytes(), "The", max_new_tokens=60, logit_bias={256: float("-inf")})[0]
    stop = free.text[10:13]
    got = generate(model, Bytes(), "The", max_new_tokens=60, stop=stop, logit_bias={256: float("-inf")})[0]
    assert got.finish_reason == "stop"
    assert got.text == free.text[: free.text.index(stop)]
    assert got.ids == free.ids[: len(got.ids)]


@pytest.mark.row("INF-06", reference="property")
def test_end_of_text(model):
    forced = {"logit_bias": {256: 1000.0}, "max_new_tokens": 5}
    ended = generate(model, Bytes(), "a", **forced)[0]
    assert (ended.text, ended.ids, ended.finish_reason) == ("", [256], "eos")
    later = generate(model, Bytes(), "a", min_new_tokens=3, **forced)[0]
    assert (len(later.ids), later.ids[-1], later.finish_reason) == (4, 256, "eos")
    ignored = generate(model, Bytes(), "a", ignore_eos=True, **forced)[0]
    assert (ignored.ids, ignored.text, ignored.finish_reason) == ([256] * 5, "", "length")
    stopped = generate(model, Bytes(), "a", stop_ids=[65], logit_bias={65: 1000.0})[0]
    assert (stopped.ids, stopped.text, stopped.finish_reason) == ([65], "", "stop")


@pytest.mark.row("INF-06", reference="property")
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0, 1])
def test_invalid_scores(bad, temperature):
    model = Decay()
    model.lm_head.weight.data[7] = bad
    with pytest.raises(NotFiniteError, match="token 1 after a prompt of 3"):
        generate(model, Bytes(), "abc", temperature=temperature)
    result = generate(model, Bytes(), "abc", temperature=temperature, invalid_scores="replace", max_new_tokens=3)[0]
    assert len(result.ids) == 3


def test_nothing_allowed_is_an_error(model):
    with pytest.raises(NotFiniteError):
        generate(model, Bytes(), "abc", logit_bias=dict.fromkeys(range(258), float("-inf")))


def test_context_overflow_names_both_numbers():
    model = Decay(limit=10)
    with pytest.raises(UsageError, match=r"prompt has 6 tokens and 5 more .* holds 10"):
        generate(model, Bytes(), "abcdef", max_new_tokens=5)
    with pytest.raises(UsageError, match=r"10 tokens and 1 more"):
        generate(model, Bytes(), "abcdefghij")
    with pytest.raises(UsageError, match=r"10 tokens"):
        stream(model, Bytes(), "abcdefghij")  # before the first piece is asked for
    ended = generate(model, Bytes(), ["abcdef", "ab"], ignore_eos=True)
    assert [len(result.ids) for result in ended] == [4, 8]


@pytest.mark.parametrize("options", [{"tempersture": 1}, {"top_p": 0}, {"stop_ids": [999]}, {"logit_bias": {-1: 0}}])
def test_wrong_settings(model, options):
    with pytest.raises(UsageError):
        generate(model, Bytes(), "a", **options)


def test_forms_of_prompts(model):
    text = generate(model, Bytes(), "abc", max_new_tokens=5)
    assert generate(model, Bytes(), [97, 98, 99], max_new_tokens=5) == text
    assert generate(model, Bytes(), [[97, 98, 99]], max_new_tokens=5) == text
    assert generate(model, Bytes(), "", max_new_tokens=5) == generate(model, Bytes(), [257], max_new_tokens=5)
    assert generate(model, Bytes(), [], max_new_tokens=5) == []
    assert generate(model, Bytes(), "abc", bos=True)[0].prompt_tokens == 4


@pytest.mark.parametrize("options", SETTINGS)
def test_logprobs_are_the_model_s_own(model, options):
    result = generate(model, Bytes(), "abc", max_new_tokens=10, logprobs=True, **options)[0]
    ids = torch.tensor([[97, 98, 99, *result.ids]])
    expected = model(ids).log_softmax(-1)[0, 2:-1].gather(-1, ids[0, 3:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(result.logprobs), expected)
    plain = generate(model, Bytes(), "abc", max_new_tokens=10, **options)[0]
    assert dataclasses.replace(result, logprobs=None) == plain


def test_mode_is_restored():
    model = Decay()
    model.lm_head.eval()
    pieces = stream(model, Bytes(), "abc")
    next(pieces)
    assert not torch.is_inference_mode_enabled()
    pieces.close()
    assert (model.training, model.lm_head.training) == (True, False)


@pytest.mark.row("INF-08", reference="property: joined pieces equal generate's text")
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.text(min_size=1, max_size=3), max_size=3), st.sampled_from(SETTINGS))
def test_streamed_pieces_are_the_text(seed, stop, options):
    model = Decay(seed=3)
    options = {"max_new_tokens": 25, "seed": seed, "stop": stop, **options}
    assert "".join(stream(model, Bytes(), "Once", **options)) == generate(model, Bytes(), "Once", **options)[0].text


@pytest.mark.row("INF-08", reference="property")
@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet="aébß猫😀\n", max_size=30),
    st.lists(st.text(alphabet="aébß猫", min_size=1, max_size=4), max_size=3),
)
def test_no_piece_is_taken_back(text, stop):
    stream, pieces = TextStream(Bytes(), stop), []
    for byte in text.encode():
        if stream.push(byte):
            break
        pieces.append(stream.take())
        assert "�" not in pieces[-1]
    stream.finish()
    pieces.append(stream.take())
    first = min([text.index(s) for s in stop if s in text], default=len(text))
    if stream.stopped:  # the stop text that ends first wins
        assert any(text.startswith("".join(pieces) + s) for s in stop)
        assert not any(s in "".join(pieces) for s in stop)
    else:
        assert "".join(pieces) == text
        assert first == len(text)


def test_bytes_that_are_no_text():
    stream = TextStream(Bytes())
    for byte in b"\xe7\x8c":
        stream.push(byte)
    assert stream.take() == ""
    stream.finish()
    assert stream.take() == "�"


def test_settings_are_documented():
    assert all(field.description for field in SamplingConfig.model_fields.values())
